"""A real redis-server on a free port, which tests may stop, pause and start again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import pytest
from redis import Redis
from redis.exceptions import RedisError

START_SECONDS = 60.0


class RedisServer:
    """Started by `start`. A context manager: leaving it kills the server."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("redis-server") is None:
            pytest.fail("redis-server is not on PATH: run `make test-shared`, which installs it (Debian: redis-server)")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *options: str, password: str = "", tls: bool = False) -> Self:
        """With nothing in it; `options` as on the command line."""
        ports = ["--port", "0", "--tls-port", str(self.port)] if tls else ["--port", str(self.port)]
        base = ["redis-server", *ports, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        if password:
            options = (*options, "--requirepass", password)
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*base, "--dir", str(self._folder), *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._wait(self.client(password, ssl=tls, ssl_cert_reqs="none"))
        return self

    def client(self, password: str = "", **options: Any) -> Redis:
        return Redis(port=self.port, password=password or None, **options)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """It accepts connections and says nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def _wait(self, client: Redis) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, (self._folder / "redis.log").read_text()
            with contextlib.suppress(RedisError), client:
                client.ping()
                return
            time.sleep(0.01)
        raise AssertionError("redis-server did not start")
