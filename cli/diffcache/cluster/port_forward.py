"""A way to a port of a pod, for as long as it is needed."""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from diffcache.cluster.errors import explain
from diffcache.cluster.kubectl import Kubectl, start

_FORWARDING = re.compile(r"^Forwarding from (127\.0\.0\.1:\d+) -> \d+$")

END_SECONDS = 5.0
"""kubectl ends at once when told to; one that hangs is killed after this."""


def parse_forwarding(line: str) -> str | None:
    """HOST:PORT on this machine, if the line says it."""
    match = _FORWARDING.match(line.strip())
    return match[1] if match else None


@contextmanager
def port_forward(kubectl: Kubectl, pod: str, port: int) -> Iterator[str]:
    """HOST:PORT on this machine that leads to the pod's port. Raises ClusterError."""
    command = kubectl.command("port-forward", "--address=127.0.0.1", "--", f"pod/{pod}", f":{port}")
    with tempfile.TemporaryFile("w+") as errors, _ended_when_terminated():
        process = start(
            subprocess.Popen, command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True
        )
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
def _ended_when_terminated() -> Iterator[None]:
    """SIGTERM becomes an exception, so that the `finally` above runs; Ctrl-C is one anyway."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
