"""Comparisons in the server as it is wired: switched on while it runs, and over when it drains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from diffcache_core.cache.states import StateKind
from diffcache_core.choices import Scope
from diffcache_core.generation import GenerationRequest, Result
from diffcache_core.serving_config import (
    CacheConfig,
    IndexConfig,
    LevelConfig,
    ListenConfig,
    QualityConfig,
    ServingConfig,
)
from diffcache_serving.config_file import ConfigFile
from diffcache_serving.engine.loading import LoadedModel
from diffcache_serving.lifecycle import drain, start
from diffcache_serving.server import wired
from tests.serving.conftest import EMOJI
from tests.serving.quality.conftest import ALWAYS


async def test_a_server_begins_to_compare_and_ends_with_comparisons_waiting(
    model: LoadedModel, folder: Path, free_ports: Callable[[int], list[int]], request_: GenerationRequest
) -> None:
    port, admin, metrics = free_ports(3)
    config = ServingConfig(
        name="test",
        data_dir=folder,
        model=EMOJI,
        batch_max_size=8,
        queue_max_steps=1000,
        cache=CacheConfig(
            capacity_bytes=2**20,
            max_entries=1000,
            state=StateKind.CLEAN,
            scope=Scope.TENANT,
            levels=(LevelConfig(skip_percent=25, similarity=0.5), LevelConfig(skip_percent=50, similarity=0.99)),
        ),
        index=IndexConfig(type="Memory"),
        listen=ListenConfig(port=port, admin_port=admin, metrics_port=metrics),
    )
    folder.mkdir()
    small = replace(request_, steps=4, width=32, height=32)
    async with wired(config, model, None) as server:
        await start(server)
        for quality, seeds in ((QualityConfig(), range(3)), (ALWAYS, range(3, 6))):
            new = config.model_copy(update={"quality": quality})
            await server.reloader.take_over(ConfigFile(folder / "config.json", "r", new))
            for seed in seeds:
                answered = await server.generator.generate(replace(small, seed=seed, request_id=f"request-{seed}"))
            await server.comparisons.settle()
            told = server.metrics
            compared = told.value("diffcache_shadow_runs_total", outcome="compared")
            assert compared == (2 if quality is ALWAYS else 0)  # the first answer pays for the next
        assert answered.result is Result.APPROXIMATE
        assert told.value("diffcache_steps_total") == 6 * 4
        server.generator.queue.seconds_per_step = 1e9
        with server.generator.queue.reserve(1):  # no idle moment comes any more
            await server.generator.generate(replace(small, seed=9, request_id="request-9"))
            await server.comparisons.planned()
            await drain(server, 0.0)
        assert told.value("diffcache_shadow_runs_total", outcome="compared") == 2
