"""Shadow caches beside a real cache and the bundled model: the one at 1x is what the real one does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diffcache_core.cache.states import BLOCK_BYTES, StateKind
from diffcache_core.choices import DType, Scope
from diffcache_core.generation import CacheMode, GenerationRequest
from diffcache_core.names import SHADOW_CACHE_SKIPPED, SHADOW_CACHE_STEPS, STEPS, STEPS_SKIPPED
from diffcache_core.serving_config import (
    CacheConfig,
    IndexConfig,
    LedgerConfig,
    LevelConfig,
    ModelConfig,
    ServingConfig,
    TuningConfig,
)
from diffcache_serving.cache.ledger import Target
from diffcache_serving.config_file import ConfigFile
from diffcache_serving.engine.loading import LoadedModel
from diffcache_serving.metrics import Metrics
from diffcache_serving.server import Server, wired
from diffcache_serving.simulated_caches.caches import CachesBySize
from diffcache_serving.simulated_caches.events import Asked
from diffcache_serving.simulated_caches.stream import LocalStream, Reading
from tests.serving.cache.redis_server import RedisServer

TOLERANCE = 0.01  # of the steps saved ratio: the tuner freezes beyond it
STATES = 24
LEVELS = (LevelConfig(skip_percent=25, similarity=0.7), LevelConfig(skip_percent=50, similarity=0.85))
THINGS = ("apple", "cat", "dog", "house", "tree", "car", "boat", "bird", "fish", "star", "moon", "hat", "cup", "key")
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "orange", "pink")


def config_of(folder: Path, states: int = STATES, kind: StateKind = StateKind.CLEAN) -> ServingConfig:
    return ServingConfig(
        name="test",
        data_dir=folder,
        model=ModelConfig(
            source="bundled://emoji", scheduler="DDIM", dtype=DType.AUTO, steps=4, guidance=3.0, width=None, height=None
        ),
        batch_max_size=8,
        queue_max_steps=1000,
        cache=CacheConfig(
            capacity_bytes=states * BLOCK_BYTES, max_entries=10_000, state=kind, scope=Scope.TENANT, levels=LEVELS
        ),
        index=IndexConfig(type="Memory"),
        tuning=TuningConfig(shadow_caches=True),
    )


def requests(count: int, seed: int) -> list[GenerationRequest]:
    """Prompts and seeds of which few are frequent; now and then one that may do less with the cache."""
    rng = np.random.default_rng(seed)
    modes = [CacheMode.DEFAULT] * 16 + [CacheMode.BYPASS, CacheMode.REFRESH, CacheMode.READ_ONLY, CacheMode.DEFAULT]
    out = []
    for i in range(count):
        colour, thing = COLOURS[rng.integers(len(COLOURS))], THINGS[(rng.zipf(1.3) - 1) % len(THINGS)]
        number = int(rng.integers(3))
        out.append(
            GenerationRequest(
                prompt=f"{colour} {thing}",
                seed=number,
                seed_is_explicit=bool(rng.integers(4)),
                steps=4,
                guidance=3.0,
                width=16,
                height=16,
                cache_mode=modes[i % len(modes)],
                max_skip_percent=30 if i % 20 == 19 else 100,
                request_id="test",
                tenant="other" if i % 10 == 0 else "default",
            )
        )
    return out


async def draw(server: Server, wanted: Sequence[GenerationRequest], at_once: int = 1) -> None:
    """So many at a time. A busy machine must not turn hits into misses, so look-ups have all the time they need."""
    server.generator.cache._look_up_seconds = 60.0
    for start in range(0, len(wanted), at_once):
        await asyncio.gather(*map(server.generator.generate, wanted[start : start + at_once]))


async def caught_up(server: Server) -> CachesBySize:
    """When the simulated caches have seen every answer. The test's own time limit ends it if they never do."""
    metrics = server.metrics
    while metrics.value(SHADOW_CACHE_STEPS, multiple="1") < metrics.value(STEPS):
        await asyncio.sleep(0.01)
    assert server.simulated.worker is not None
    assert server.simulated.worker.caches is not None
    return server.simulated.worker.caches


async def started(server: Server) -> CachesBySize:
    """When they hold what the ledger held."""
    worker = server.simulated.worker
    assert worker is not None
    while worker.caches is None:
        await asyncio.sleep(0.01)
    return worker.caches


def simulated(metrics: Metrics, multiple: float) -> float:
    label = f"{multiple:g}"
    steps = metrics.value(SHADOW_CACHE_STEPS, multiple=label)
    return metrics.value(SHADOW_CACHE_SKIPPED, multiple=label) / steps


def measured(metrics: Metrics) -> float:
    return metrics.value(STEPS_SKIPPED) / metrics.value(STEPS)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("kind", "at_once"), [(StateKind.CLEAN, 1), (StateKind.CLEAN, 8), (StateKind.TRAJECTORY, 8)])
async def test_1x_is_the_real_cache(model: LoadedModel, folder: Path, kind: StateKind, at_once: int) -> None:
    async with wired(config_of(folder, kind=kind), model, None) as server:
        await started(server)
        await draw(server, requests(240, seed=1), at_once)
        await caught_up(server)
        metrics = server.metrics
        assert measured(metrics) > 0.1
        # Of requests at the same time nobody says which came first, and the two may see them in another order.
        assert abs(simulated(metrics, 1.0) - measured(metrics)) <= (TOLERANCE if at_once == 1 else 3 * TOLERANCE)
        assert simulated(metrics, 0.5) < simulated(metrics, 1.0) < simulated(metrics, 4.0)


async def test_a_restart_goes_on_from_the_ledger(model: LoadedModel, folder: Path) -> None:
    async with wired(config_of(folder), model, None) as server:
        await draw(server, requests(120, seed=2))
    async with wired(config_of(folder), model, None) as server:
        caches = await started(server)
        entries = (await server.generator.cache.totals()).entries
        assert [caches.size_of(m) for m in (1.0, 1.5, 2.0, 4.0)] == [entries] * 4
        await draw(server, requests(120, seed=3))
        await caught_up(server)
        metrics = server.metrics
        assert abs(simulated(metrics, 1.0) - measured(metrics)) <= TOLERANCE


@pytest.mark.shared
async def test_one_of_two_replicas_sees_what_both_are_asked(model: LoadedModel, folder: Path, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as redis:
        config = config_of(folder)
        ledger = LedgerConfig(address=redis.start().address)
        config = config.model_copy(update={"cache": config.cache.model_copy(update={"ledger": ledger})})
        async with wired(config, model, None) as one:
            caches = await started(one)
            async with wired(config, model, None) as other:
                await draw(one, requests(20, seed=10))
                await draw(other, requests(20, seed=11))
                while one.metrics.value(SHADOW_CACHE_STEPS, multiple="1") < 4 * 40:
                    await asyncio.sleep(0.01)
                assert other.simulated.worker is not None
                assert other.simulated.worker.caches is None
                assert other.metrics.value(SHADOW_CACHE_STEPS, multiple="1") == 0
                assert len(caches) > 0
        assert one.metrics.value("diffcache_shadow_cache_events_dropped_total") == 0


async def test_hot_changes_keep_it_in_step(model: LoadedModel, folder: Path) -> None:
    async with wired(config_of(folder), model, None) as server:
        await draw(server, requests(80, seed=4))
        await caught_up(server)
        config = config_of(folder, states=2 * STATES)
        levels = (LevelConfig(skip_percent=25, similarity=0.6), LevelConfig(skip_percent=50, similarity=0.75))
        config = config.model_copy(
            update={
                "cache": config.cache.model_copy(update={"levels": levels}),
                "tuning": TuningConfig(revision=7, shadow_caches=True),
            }
        )
        await server.reloader.take_over(ConfigFile(folder / "config.json", "r", config))
        metrics = server.metrics
        before = [metrics.value(name) for name in (STEPS, STEPS_SKIPPED)]
        shadow = [metrics.value(name, multiple="1") for name in (SHADOW_CACHE_STEPS, SHADOW_CACHE_SKIPPED)]
        await draw(server, requests(120, seed=5))
        await caught_up(server)
        real = (metrics.value(STEPS_SKIPPED) - before[1]) / (metrics.value(STEPS) - before[0])
        told = (metrics.value(SHADOW_CACHE_SKIPPED, multiple="1") - shadow[1]) / (
            metrics.value(SHADOW_CACHE_STEPS, multiple="1") - shadow[0]
        )
        assert abs(real - told) <= TOLERANCE
        assert metrics.value("diffcache_tuning_revision") == 7


async def test_a_purge_reaches_them(model: LoadedModel, folder: Path) -> None:
    async with wired(config_of(folder), model, None) as server:
        await draw(server, requests(40, seed=6))
        caches = await caught_up(server)
        assert len(caches) > 0
        target = Target(tenant="default")
        await server.generator.cache.purge(target)
        assert server.feed is not None
        server.feed.purged(target)
        await draw(server, [replace(requests(1, seed=6)[0], cache_mode=CacheMode.BYPASS)])
        await caught_up(server)
        assert caches.size_of(1.0) == (await server.generator.cache.totals()).entries


async def test_turned_off_they_end_and_export_nothing(model: LoadedModel, folder: Path) -> None:
    async with wired(config_of(folder), model, None) as server:
        await draw(server, requests(20, seed=7))
        await caught_up(server)
        registry = server.metrics.registry
        name = "diffcache_shadow_steps_saved_ratio"
        while registry.get_sample_value(name, {"multiple": "4"}) is None:
            await asyncio.sleep(0.01)
        off = config_of(folder).model_copy(update={"tuning": TuningConfig()})
        await server.reloader.take_over(ConfigFile(folder / "config.json", "off", off))
        assert server.simulated.worker is None
        assert registry.get_sample_value(name, {"multiple": "4"}) is None
        await draw(server, requests(5, seed=8))  # and requests go on


async def test_what_does_not_fit_the_queue_is_counted(model: LoadedModel, folder: Path) -> None:
    async with wired(config_of(folder), model, None) as server:
        assert server.feed is not None
        server.feed.stream = LocalStream(limit=0)
        await draw(server, requests(3, seed=9))
        assert server.metrics.value("diffcache_shadow_cache_events_dropped_total") == 2 * 3


async def test_no_text_leaves_the_feed(model: LoadedModel, folder: Path) -> None:
    async with wired(config_of(folder), model, None) as server:
        feed = server.feed
        assert feed is not None
        feed.stream = LocalStream()
        await draw(server, [replace(requests(1, seed=1)[0], prompt="a secret word", tenant="acme")])
        reading = Reading(True, [])
        while not reading.events:
            reading = await feed.stream.read(1.0)
        assert isinstance(reading.events[0], Asked)
        told = repr(
            [replace(event, key=np.empty(0)) if isinstance(event, Asked) else event for event in reading.events]
        )
        assert "secret" not in told
        assert "acme" not in told
