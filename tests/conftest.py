"""What every test may use, and what watches every test. OpenMP is told not to spin before anything imports torch."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

import hypothesis
import pytest

from tests.watch import loop_watch

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

STALLS = Path(tempfile.mkdtemp(prefix="diffcache-stalls-"))
os.environ[loop_watch.FOLDER] = str(STALLS)
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent / "watch"), *filter(None, [os.environ.get("PYTHONPATH")])]
)
loop_watch.install()

hypothesis.settings.register_profile("no-deadline", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("no-deadline")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Generator[None]:
    """A test fails in which an event loop stood still, its own or one of a process that it used."""
    yield
    if stalls := loop_watch.take_reports(STALLS):
        pytest.fail("\n".join(stalls), pytrace=False)


def pytest_unconfigure() -> None:
    shutil.rmtree(STALLS, ignore_errors=True)


@pytest.fixture(scope="session")
def free_ports() -> Callable[[int], list[int]]:
    """So many ports on which nobody listens now."""

    def find(count: int) -> list[int]:
        sockets = [socket.socket() for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        ports = [int(s.getsockname()[1]) for s in sockets]
        for s in sockets:
            s.close()
        return ports

    return find
