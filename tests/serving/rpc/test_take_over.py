"""A new config under a running server: what may change changes at once, and no request notices."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from diffcache_core.cache.states import StateKind
from diffcache_core.choices import DType, Scope
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_core.pb import diffcache_pb2_grpc as pb_grpc
from diffcache_core.serving_config import (
    CacheConfig,
    IndexConfig,
    LedgerConfig,
    LevelConfig,
    ListenConfig,
    ModelConfig,
    ServingConfig,
    TuningConfig,
)
from diffcache_serving.config_file import ConfigFile
from diffcache_serving.config_watch import NotWhole
from diffcache_serving.engine.loading import LoadedModel
from diffcache_serving.lifecycle import drain, start
from diffcache_serving.server import Server, wired
from diffcache_serving.values.defaults import choose_defaults

NOTHING: tuple[LevelConfig, ...] = ()
LEVELS = (LevelConfig(skip_percent=50, similarity=0.5),)


@dataclass
class Running:
    server: Server
    images: Any
    admin: Any

    async def draw(self, prompt: str = "red apple, noto style", **fields: Any) -> pb.GenerateResponse:
        return await self.images.Generate(pb.GenerateRequest(prompt=prompt, **fields))

    async def take_over(self, revision: str = "r", **changes: Any) -> None:
        """`changes` of fields, or of those of `model` and `cache` by their own names."""
        config = self.server.reloader.config
        model = {k: v for k, v in changes.items() if k in ModelConfig.model_fields}
        cache = {k: v for k, v in changes.items() if k in CacheConfig.model_fields}
        fields = {k: v for k, v in changes.items() if k in ServingConfig.model_fields}
        assert len(model) + len(cache) + len(fields) == len(changes)
        new = config.model_copy(
            update={
                "model": config.model.model_copy(update=model),
                "cache": config.cache.model_copy(update=cache),
                **fields,
            }
        )
        await self.server.reloader.take_over(ConfigFile(Path("config.json"), revision, new))

    def metric(self, name: str, **labels: str) -> float | None:
        return self.server.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def config(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> ServingConfig:
    port, admin, metrics = free_ports(3)
    return ServingConfig(
        name="test",
        data_dir=tmp_path,
        model=ModelConfig(
            source="bundled://emoji", scheduler="DDIM", dtype=DType.AUTO, steps=4, guidance=3.0, width=32, height=32
        ),
        batch_max_size=8,
        queue_max_steps=1000,
        cache=CacheConfig(
            capacity_bytes=2**20, max_entries=1000, state=StateKind.CLEAN, scope=Scope.TENANT, levels=NOTHING
        ),
        index=IndexConfig(type="Memory"),
        listen=ListenConfig(port=port, admin_port=admin, metrics_port=metrics),
    )


@contextlib.asynccontextmanager
async def serving(config: ServingConfig, model: LoadedModel) -> AsyncIterator[Running]:
    model = replace(
        model, defaults=choose_defaults(config.model, model.own_size, model.diffusion.size_multiple)
    )  # it was loaded for other tests
    listen = config.listen
    async with (
        wired(config, model, None) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{listen.port}") as channel,
        grpc.aio.insecure_channel(f"127.0.0.1:{listen.admin_port}") as admin_channel,
    ):
        await start(server)
        yield Running(server, pb_grpc.ImageGenerationStub(channel), pb_grpc.CacheAdminStub(admin_channel))
        await drain(server, 5.0)


@pytest.fixture
async def running(config: ServingConfig, model: LoadedModel) -> AsyncIterator[Running]:
    async with serving(config, model) as server:
        yield server


async def test_a_ledger_that_is_down_keeps_no_process_from_starting(
    config: ServingConfig, model: LoadedModel, free_ports: Callable[[int], list[int]]
) -> None:
    (nobody,) = free_ports(1)
    ledger = LedgerConfig(address=f"redis://127.0.0.1:{nobody}/0")
    cache = config.cache.model_copy(update={"ledger": ledger})
    async with serving(config.model_copy(update={"cache": cache}), model) as running:
        assert (await running.draw()).result == pb.RESULT_MISS
        assert running.metric("diffcache_queue_max_steps") == 1000


async def test_the_first_config_is_taken_over_by_every_component(running: Running) -> None:
    """Gauges of what is in force have their values before anything changes."""
    assert running.metric("diffcache_queue_max_steps") == 1000
    assert running.metric("diffcache_capacity_bytes") == 2**20


async def test_defaults_change(running: Running) -> None:
    assert (await running.draw()).steps == 4
    await running.take_over(steps=2, width=64, height=None)
    answer = await running.draw(cache_mode=pb.CACHE_MODE_BYPASS)
    assert answer.steps == 2
    assert running.server.images.defaults.height == 64  # the model's own
    assert running.server.images.defaults.width == 64


async def test_levels_change(running: Running) -> None:
    await running.draw(seed=1)
    assert (await running.draw("red apple, flat style", seed=2)).result == pb.RESULT_MISS
    await running.take_over(levels=LEVELS)
    assert (await running.draw("red apple, flat style", seed=3)).result == pb.RESULT_APPROXIMATE
    stats = await running.admin.GetStats(pb.GetStatsRequest())
    assert [(level.skip_percent, level.similarity) for level in stats.levels] == [(50, 0.5)]
    await running.take_over(levels=None)
    assert (await running.admin.GetStats(pb.GetStatsRequest())).levels_source == "model"


async def test_a_smaller_capacity_evicts_and_a_smaller_queue_refuses(running: Running) -> None:
    for seed in range(3):
        await running.draw(seed=seed)
    await running.server.generator.cache.settle()
    state = (await running.server.generator.cache.totals()).bytes // 3
    await running.take_over(capacity_bytes=state, queue_max_steps=5)
    assert (await running.server.generator.cache.totals()).entries == 1
    assert running.metric("diffcache_evictions_total", reason="capacity") == 2
    assert running.metric("diffcache_capacity_bytes") == state
    call = asyncio.ensure_future(running.draw(seed=9, steps=500))
    while not running.server.generator.queue.requests:
        await asyncio.sleep(0)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.draw(seed=8)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    call.cancel()


async def test_a_size_that_the_model_cannot_make_changes_nothing(running: Running) -> None:
    before = running.server.reloader.config
    with pytest.raises(NotWhole, match=r"defaults: spec\.model\.width: must be a multiple of 8"):
        await running.take_over(width=20, steps=1, batch_max_size=1)
    assert running.server.reloader.config == before
    assert (await running.draw()).steps == 4


async def test_the_log_and_the_metrics_say_which_config_counts(running: Running) -> None:
    with structlog.testing.capture_logs() as lines:
        await running.take_over("one", steps=3, scheduler="Euler")
        await running.take_over("two")
    first, second = [line for line in lines if line["event"] == "config reloaded"]
    assert (first["changed"], first["at_next_start"]) == ({"model.steps": 3}, ["model.scheduler"])
    assert (second["changed"], second["at_next_start"]) == ({}, [])
    assert running.metric("diffcache_config_info", revision="one") is None
    assert running.metric("diffcache_config_info", revision="two") == 1
    assert running.metric("diffcache_index_up") == 1
    model = running.server.model
    assert running.metric("diffcache_model_info", model="emoji", fingerprint=model.fingerprint) == 1


async def test_runs_in_flight_go_on_under_another_batch_size(running: Running) -> None:
    calls = [asyncio.ensure_future(running.draw(seed=seed, steps=60)) for seed in range(4)]
    while running.server.generator.queue.requests < 4:
        await asyncio.sleep(0)
    await running.take_over(batch_max_size=1)
    await running.take_over(batch_max_size=3)
    assert [answer.steps for answer in await asyncio.gather(*calls)] == [60] * 4


async def test_a_ledger_that_cannot_be_written_holds_up_its_own_part_and_no_other(running: Running) -> None:
    for seed in range(3):
        await running.draw(seed=seed)
    await running.server.generator.cache.settle()
    smaller = (await running.server.generator.cache.totals()).bytes // 3
    await running.take_over("one")
    with contextlib.closing(sqlite3.connect(running.server.reloader.config.data_dir / "ledger.db")) as other:
        other.execute("BEGIN IMMEDIATE")  # nobody else writes now
        with pytest.raises(NotWhole, match="database is locked") as caught:
            await running.take_over("two", capacity_bytes=smaller, steps=3, tuning=TuningConfig(revision=7))
        assert list(caught.value.hanging) == ["cache"]
        assert (await running.draw(seed=9)).steps == 3
        assert running.metric("diffcache_config_info", revision="one") == 1
        assert running.metric("diffcache_tuning_revision") == 0  # the tuner waits for the whole
        other.rollback()
    await running.take_over("two", capacity_bytes=smaller, steps=3, tuning=TuningConfig(revision=7))
    assert (await running.server.generator.cache.totals()).entries == 1
    assert running.metric("diffcache_config_info", revision="two") == 1
    assert running.metric("diffcache_tuning_revision") == 7
