"""Boxes that are closed again, and a Redis for those that share one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diffcache_core.serving_config import StoreConfig
from tests.serving.cache.box import Box
from tests.serving.cache.redis_server import RedisServer
from tests.serving.cache.s3_server import S3Server


@pytest.fixture
async def boxes(folder: Path) -> AsyncIterator[Callable[..., Any]]:
    opened: list[Box] = []

    async def make(**options: Any) -> Box:
        opened.append(await Box(folder).open(**options))
        return opened[-1]

    yield make
    for box in opened:
        await box.close()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """For tests that leave it as it is: each takes a prefix of its own."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.start()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """For tests that leave it as it is: each takes a bucket of its own."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server.start()


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> StoreConfig:
    """A new one, with credentials in the environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.make_bucket()
