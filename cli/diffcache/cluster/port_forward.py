"""A way to a port of a pod, for as long as it is needed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from diffcache.cluster.errors import explain
from diffcache.cluster.kubectl import Kubectl, start

_FORWARDING = re.compile(r"^Forwarding from (127\.0\.0\.1:\d+) -> \d+$")

END_SECONDS = 5.0
"""kubectl ends at once when asked to; one that hangs is killed after this."""


def parse_forwarding(line: str) -> str | None:
    """HOST:PORT on this machine, if the line says it."""
    match = _FORWARDING.match(line.strip())
    return match[1] if match else None


@contextmanager
def port_forward(kubectl: Kubectl, pod: str, port: int) -> Iterator[str]:
    """HOST:PORT on this machine that leads to the pod's port. Raises ClusterError."""
    command = kubectl.command("port-forward", "--address=127.0.0.1", "--", f"pod/{pod}", f":{port}")
    processes: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryFile("w+") as errors, _terminated_with_us(processes):
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": errors, "text": True}
        process = start(subprocess.Popen, command, **options)
        processes.append(process)
        try:
            address = next(filter(None, map(parse_forwarding, process.stdout)), None)
            if address is None:
                process.wait()
                errors.seek(0)
                raise explain(errors.read())
            yield address
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def _terminated_with_us(processes: Sequence[subprocess.Popen[str]]) -> Iterator[None]:
    """SIGTERM ends them, too, and then this process as ever.

    It raises nothing: an exception in the midst of closing a gRPC channel leaves a lock of it taken for ever.
    """

    def leave(number: int, _: FrameType | None) -> None:
        for process in processes:
            process.terminate()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
