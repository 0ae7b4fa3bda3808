"""Forwards a local port to a port of a pod, as long as it is needed."""

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
"""Time after which kubectl is killed if it does not end. Normally it ends at once."""


def parse_forwarding(line: str) -> str | None:
    """Returns HOST:PORT on this machine from a line of kubectl, or None if the line does not contain it."""
    match = _FORWARDING.match(line.strip())
    return match[1] if match else None


@contextmanager
def port_forward(kubectl: Kubectl, pod: str, port: int) -> Iterator[str]:
    """Yields HOST:PORT on this machine, which leads to the pod's port. Raises ClusterError if kubectl fails."""
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
    """Makes SIGTERM end these processes first, and then this process as usual.

    The handler raises no exception: an exception while a gRPC channel closes would leave its lock taken forever.
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
