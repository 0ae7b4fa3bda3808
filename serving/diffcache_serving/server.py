"""Builds all parts of a serving process and connects them. Only this module does so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import structlog

from diffcache_core.cache.budget import Budget
from diffcache_core.choices import Scope
from diffcache_core.net.exposition import exposition
from diffcache_core.net.http_server import HttpServer
from diffcache_core.serving_config import ServingConfig
from diffcache_serving.cache.cache import Cache, Repair
from diffcache_serving.cache.milvus_lite import MilvusLite
from diffcache_serving.cache.opening import open_index, open_ledger, open_store
from diffcache_serving.engine.engine import Engine
from diffcache_serving.engine.loading import LoadedModel
from diffcache_serving.generate import Generator
from diffcache_serving.metrics import Metrics
from diffcache_serving.model_folders import remove_retired
from diffcache_serving.quality.comparisons import Comparisons
from diffcache_serving.queueing import StepQueue
from diffcache_serving.reload import Component, Reloader, choose_levels
from diffcache_serving.rpc.listen import build_servers
from diffcache_serving.rpc.servicer import CacheAdmin, ImageGeneration
from diffcache_serving.service.cache_service import CacheService
from diffcache_serving.service.image_service import ImageService
from diffcache_serving.simulated_caches.feed import Feed
from diffcache_serving.simulated_caches.switch import SimulatedCaches
from diffcache_serving.upkeep import keep_up
from diffcache_serving.vitals import Vitals

log = structlog.get_logger("diffcache.server")


@dataclass
class Server:
    """All parts of a running serving process."""

    reloader: Reloader
    model: LoadedModel
    generator: Generator
    metrics: Metrics
    images: ImageService
    cache: CacheService
    health: Any
    grpc_server: Any
    admin_server: Any
    metrics_server: HttpServer
    repair: Repair
    comparisons: Comparisons
    feed: Feed
    simulated: SimulatedCaches
    vitals: Vitals
    background: list[asyncio.Task[None]] = field(default_factory=list)

    def run_beside(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Starts a background task that runs as long as the server."""
        task = asyncio.create_task(work, name=name)
        self.background.append(task)
        self.vitals.watch(task)


@contextlib.asynccontextmanager
async def wired(config: ServingConfig, model: LoadedModel, lite: MilvusLite | None) -> AsyncIterator[Server]:
    """Builds all parts of a serving process; no port is open yet. On exit it stops the parts in order."""
    metrics = Metrics(model.name)
    metrics.build_info.labels(version("diffcache"), model.name, model.diffusion.device.type).set(1)
    metrics.model_info.labels(model.name, model.fingerprint).set(1)
    vitals = Vitals()
    levels, source = choose_levels(config, model)

    ledger = await open_ledger(config, metrics)
    index = open_index(config, model.fingerprint, model.diffusion.key_dim, ledger, lite, metrics)
    store = open_store(config, metrics)
    identity = model.identity(shared=config.cache.scope is Scope.SHARED)
    budget = Budget(config.cache.capacity_bytes, config.cache.max_entries)
    cache = Cache(ledger, store, index, metrics, identity, levels, config.cache.state, budget)

    queue = _build_queue(config, model, metrics)
    engine = _build_engine(config, model, queue, metrics)
    vitals.watch_future("the device thread", engine.ended)

    comparisons = Comparisons(queue, engine, cache, metrics)
    feed = Feed(identity, metrics)
    simulated = SimulatedCaches(feed, ledger, metrics, on_start=vitals.watch_until_cancelled)
    generator = Generator(queue, engine, cache, [metrics, feed, comparisons])
    repair = await cache.repair()

    images = ImageService(generator, model.name, model.defaults)
    cache_service = CacheService(cache, queue, metrics, source, on_purge=feed.purged)
    grpc_server, admin_server, health = build_servers(
        ImageGeneration(images),
        CacheAdmin(cache_service, model.name, str(model.diffusion.device)),
        on_failure=metrics.failed,
    )
    components: dict[str, Component] = {
        "images": images,
        "stats": cache_service,
        "engine": engine,
        "queue": queue,
        "metrics": metrics,
        # The parts that may fail have the names listed in names.CONFIG_PARTS.
        "cache": cache,
        "quality": comparisons,
        "shadow_caches": simulated,
    }
    reloader = Reloader(config, model, components, metrics)
    server = Server(
        reloader,
        model,
        generator,
        metrics,
        images,
        cache_service,
        health,
        grpc_server,
        admin_server,
        HttpServer(exposition(metrics.registry)),
        repair,
        comparisons,
        feed,
        simulated,
        vitals,
    )
    upkeep = keep_up(
        cache,
        read_grace_seconds=lambda: reloader.config.space_grace_seconds,
        remove_models=lambda before: remove_retired(config.data_dir, before),
    )
    server.run_beside(upkeep, "upkeep")
    vitals.watch(*cache.tasks, comparisons.task)
    try:
        await reloader.start()
        yield server
    finally:
        await _cancel_all(server.background)
        await comparisons.close()
        await simulated.close()
        await engine.stop()
        await cache.close()
        server.metrics_server.close()  # last, so that Prometheus can scrape until the end


def _build_queue(config: ServingConfig, model: LoadedModel, metrics: Metrics) -> StepQueue:
    def on_change(steps: float, requests: int) -> None:
        metrics.pending_steps.set(steps)
        metrics.queue_depth.set(requests)

    own_width, own_height = model.own_size
    return StepQueue(config.queue_max_steps, on_change, own_width * own_height)


def _build_engine(config: ServingConfig, model: LoadedModel, queue: StepQueue, metrics: Metrics) -> Engine:
    def on_call(seconds: float, size: int, pixels: int) -> None:
        work = size * queue.cost(pixels)
        metrics.step_seconds.observe(seconds / work)
        metrics.device_seconds.inc(seconds)
        queue.measured(seconds / work)

    def on_memory(call: str) -> None:
        metrics.out_of_memory.labels(call).inc()
        log.warning("a call of the device ran out of memory", call=call)

    return Engine(model.diffusion, config.batch_max_size, on_call, on_memory)


async def _cancel_all(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
