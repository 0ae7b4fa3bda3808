"""Boxes that are closed again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serving.cache.box import Box


@pytest.fixture
async def boxes(folder: Path) -> AsyncIterator[Callable[..., Any]]:
    opened: list[Box] = []

    async def make(**options: Any) -> Box:
        opened.append(await Box(folder).open(**options))
        return opened[-1]

    yield make
    for box in opened:
        await box.close()
