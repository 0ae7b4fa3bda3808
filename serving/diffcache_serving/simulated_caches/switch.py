"""Starts and ends the simulated caches of a serving process, as the config says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import LCBFU
from diffcache_core.cache.resume import Levels
from diffcache_core.serving_config import ServingConfig
from diffcache_serving.cache.ledger import Ledger
from diffcache_serving.cache.redis_client import RedisAccess, connect
from diffcache_serving.metrics import Metrics
from diffcache_serving.simulated_caches.feed import Feed
from diffcache_serving.simulated_caches.redis_stream import RedisStream
from diffcache_serving.simulated_caches.restore import read_ledger
from diffcache_serving.simulated_caches.stream import LocalStream, RequestStream
from diffcache_serving.simulated_caches.worker import SimulationWorker
from diffcache_serving.values.hot_config import HotConfig


@dataclass
class SimulatedCaches:
    """Call `configure` at the start and for each new config. `close` must be awaited before the ledger is closed."""

    feed: Feed
    ledger: Ledger
    metrics: Metrics
    worker: SimulationWorker | None = None
    on_start: Callable[[Iterable[asyncio.Task[None]]], None] = lambda tasks: None
    """Called with the tasks of each worker that is started."""

    async def apply(self, hot: HotConfig) -> None:
        await self.configure(hot.config, hot.levels)

    async def configure(self, config: ServingConfig, levels: Levels) -> None:
        if not config.tuning.shadow_caches:
            await self.close()
            return
        cache = config.cache
        budget = Budget(cache.capacity_bytes, cache.max_entries)
        if self.worker is not None:
            self.worker.rebase(levels, budget)
            return
        stream = make_stream(config, self.metrics.shadow_cache_dropped.inc)
        self.worker = SimulationWorker(
            stream, lambda: read_ledger(self.ledger, cache.state), self.metrics, LCBFU(), cache.state, levels, budget
        )
        self.feed.stream = stream
        self.on_start([self.worker.task, *stream.tasks])

    async def close(self) -> None:
        worker, self.worker, self.feed.stream = self.worker, None, None
        if worker is not None:
            await worker.close()


def make_stream(config: ServingConfig, on_dropped: Callable[[float], None]) -> RequestStream:
    """Returns the stream for a config.

    A replica sees only its own requests, so replicas that share a cache send their events through the ledger's Redis.
    """
    ledger = config.cache.ledger
    if not config.cache.is_shared:
        return LocalStream()
    access = RedisAccess(ledger.address, ledger.password_file, ledger.ca_file)
    return RedisStream(connect(access), f"diffcache:{ledger.prefix or config.name}", on_dropped)
