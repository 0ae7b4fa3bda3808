"""A real S3 server, versitygw, on a free port; its buckets are folders."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Self

import pytest

from diffcache_core.choices import StoreType
from diffcache_core.serving_config import StoreConfig

START_SECONDS = 60.0


class S3Server:
    """Started by `start`. A context manager: leaving it kills the server."""

    environment = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}  # noqa: RUF012

    def __init__(self, folder: Path) -> None:
        if shutil.which("versitygw") is None:
            pytest.fail("versitygw is not on PATH: run `make test-shared`, which builds it")
        self._root = folder / "buckets"
        self._root.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = int(free.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        keys = {"ROOT_ACCESS_KEY": "key", "ROOT_SECRET_KEY": "secret"}
        with (self._root.parent / "s3.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["versitygw", "--quiet", "--port", f"127.0.0.1:{self._port}", "posix", str(self._root)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **keys},
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self._root.parent / "s3.log").read_text()
            assert time.monotonic() < deadline, "versitygw did not start"
            time.sleep(0.02)
        return self

    def make_bucket(self) -> StoreConfig:
        bucket = f"b{uuid.uuid4().hex}"
        (self._root / bucket).mkdir()
        endpoint = f"http://127.0.0.1:{self._port}"
        return StoreConfig(
            type=StoreType.S3, bucket=bucket, prefix="some/folder", endpoint=endpoint, region="us-east-1"
        )

    def files(self, config: StoreConfig) -> list[Path]:
        return sorted((self._root / config.bucket).rglob("*.safetensors"))

    def remove_bucket(self, config: StoreConfig) -> None:
        shutil.rmtree(self._root / config.bucket)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self._port}/", timeout=1).close()
        except urllib.error.HTTPError:  # it wants a signature
            return True
        except OSError:
            return False
        return True
