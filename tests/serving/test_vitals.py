"""What a process cannot do without: when it ends, the wait for a signal ends with the reason."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from diffcache_core.cache.states import StateKind
from diffcache_core.choices import Scope
from diffcache_core.serving_config import CacheConfig, IndexConfig, ListenConfig, ServingConfig, TuningConfig
from diffcache_serving.cache.ledger import Target
from diffcache_serving.engine.loading import LoadedModel
from diffcache_serving.server import wired
from diffcache_serving.simulated_caches.worker import SimulationWorker
from diffcache_serving.values.errors import DeviceFailed
from diffcache_serving.vitals import PartEnded, Vitals
from tests.serving.conftest import EMOJI

PARTS = ["keeper", "upkeep", "comparisons", "index-writer"]


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


@pytest.fixture
def config(tmp_path: Path, free_ports: Any) -> ServingConfig:
    port, admin, metrics, milvus = free_ports(4)
    return ServingConfig(
        name="test",
        data_dir=tmp_path,
        model=EMOJI,
        batch_max_size=8,
        queue_max_steps=1000,
        cache=CacheConfig(
            capacity_bytes=2**20, max_entries=1000, state=StateKind.CLEAN, scope=Scope.TENANT, levels=None
        ),
        index=IndexConfig(type="External", uri=f"http://127.0.0.1:{milvus}"),  # nobody is there
        tuning=TuningConfig(shadow_caches=True),
        listen=ListenConfig(port=port, admin_port=admin, metrics_port=metrics),
    )


@pytest.mark.parametrize("part", PARTS)
async def test_every_part_of_a_server_is_watched(part: str, model: LoadedModel, config: ServingConfig) -> None:
    async with wired(config, model, None) as server:
        task = next(task for task in asyncio.all_tasks() if task.get_name() == part)
        task.cancel()
        failure = await server.vitals.failed_before(asyncio.Event())
        assert part in str(failure)


async def test_the_simulated_caches_may_be_switched_off_but_not_fail(
    model: LoadedModel, config: ServingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimulationWorker, "_turn", lambda self: raising(ZeroDivisionError()))
    monkeypatch.setattr(SimulationWorker, "_start", lambda self: raising(ZeroDivisionError()))
    async with wired(config, model, None) as server:
        failure = await server.vitals.failed_before(asyncio.Event())
        assert "shadow-caches has ended" in str(failure)


async def test_a_purge_does_not_outlive_a_dead_keeper(model: LoadedModel, config: ServingConfig) -> None:
    async with wired(config, model, None) as server:
        cache = server.generator.cache
        cache.tasks[0].cancel()
        purge = asyncio.create_task(cache.purge(Target()))
        await server.vitals.failed_before(asyncio.Event())
    with pytest.raises(asyncio.CancelledError):
        await purge
