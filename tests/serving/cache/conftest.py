"""Boxes that are closed again, and a Redis for those that share one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.cache.box import Box
from tests.serving.cache.redis_server import RedisServer


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
