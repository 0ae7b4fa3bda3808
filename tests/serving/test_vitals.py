"""What a process cannot do without: when it ends, the wait for a signal ends with the reason."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from diffcache_core.serving_config import CacheConfig, IndexConfig, ListenConfig, ServingConfig
from diffcache_core.spec import Scope
from diffcache_core.states import StateKind
from diffcache_serving.engine.loading import LoadedModel
from diffcache_serving.errors import DeviceFailed
from diffcache_serving.server import wired
from diffcache_serving.vitals import PartEnded, Vitals
from tests.serving.conftest import EMOJI

PARTS = ["keeper", "upkeep", "shadows"]


async def raising(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("ending", "told"),
    [(ZeroDivisionError("by zero"), "helper has ended: ZeroDivisionError"), (None, "helper has ended: returned")],
)
async def test_the_first_that_ends_is_told_by_name(ending: Exception | None, told: str) -> None:
    vitals, stopping = Vitals(), asyncio.Event()
    vitals.watch(asyncio.create_task(raising(ending) if ending else asyncio.sleep(0), name="helper"))
    failure = await vitals.failed_before(stopping)
    assert isinstance(failure, PartEnded)
    assert told in str(failure)
    assert failure.__cause__ is ending


async def test_a_lost_device_is_told_as_such() -> None:
    vitals = Vitals()
    vitals.watch(asyncio.create_task(raising(DeviceFailed("an illegal memory access")), name="device"))
    assert isinstance(await vitals.failed_before(asyncio.Event()), DeviceFailed)


async def test_a_stop_is_no_failure() -> None:
    vitals, stopping = Vitals(), asyncio.Event()
    task = asyncio.create_task(asyncio.sleep(3600), name="helper")
    vitals.watch(task)
    stopping.set()
    assert await vitals.failed_before(stopping) is None
    task.cancel()


async def test_what_a_change_of_config_ends_may_end() -> None:
    vitals = Vitals()
    replaced = asyncio.create_task(asyncio.sleep(3600), name="replaced")
    other = asyncio.create_task(raising(ZeroDivisionError()), name="other")
    vitals.watch_until_cancelled([replaced])
    replaced.cancel()
    await asyncio.wait([replaced])
    vitals.watch_until_cancelled([other])
    failure = await vitals.failed_before(asyncio.Event())
    assert "other" in str(failure)


@pytest.mark.parametrize("part", PARTS)
async def test_every_part_of_a_server_is_watched(
    part: str, model: LoadedModel, tmp_path: Path, free_ports: Any
) -> None:
    port, admin, metrics = free_ports(3)
    config = ServingConfig(
        name="test",
        data_dir=tmp_path,
        model=EMOJI,
        batch_max_size=8,
        queue_max_steps=1000,
        cache=CacheConfig(
            capacity_bytes=2**20, max_entries=1000, state=StateKind.CLEAN, scope=Scope.TENANT, levels=None
        ),
        index=IndexConfig(type="Memory"),
        listen=ListenConfig(port=port, admin_port=admin, metrics_port=metrics),
    )
    async with wired(config, model, None) as server:
        task = next(task for task in asyncio.all_tasks() if task.get_name() == part)
        task.cancel()
        failure = await server.vitals.failed_before(asyncio.Event())
        assert part in str(failure)
        if part == "keeper":
            server.generator.cache._keeper.task = asyncio.create_task(asyncio.sleep(0))  # else closing waits for it
