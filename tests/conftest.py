"""What every test may use. OpenMP is told not to spin before anything imports torch."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


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
