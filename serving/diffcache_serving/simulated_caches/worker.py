"""Runs the simulated caches in the background: one task reads the stream, and a separate thread computes.

The thread holds the GIL only between calls of numpy, for about one millisecond per request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import Policy, PolicyRecord
from diffcache_core.cache.resume import Levels
from diffcache_core.cache.states import StateKind
from diffcache_serving.metrics import Metrics
from diffcache_serving.simulated_caches.caches import CachesBySize, Restored
from diffcache_serving.simulated_caches.events import Event
from diffcache_serving.simulated_caches.stream import RequestStream

READ_SECONDS = 5.0  # maximum wait for events; also the maximum delay before a lost lease is noticed

T = TypeVar("T")

log = structlog.get_logger("diffcache.shadow_caches")


class SimulationWorker:
    """The constructor starts the worker. `close` must be awaited; it closes the stream too.

    `read_ledger` returns the contents of the real cache. Only the process that reads the stream runs the simulated
    caches and exports their metrics.
    """

    def __init__(
        self,
        stream: RequestStream,
        read_ledger: Callable[[], Awaitable[tuple[Sequence[Restored], PolicyRecord]]],
        metrics: Metrics,
        policy: Policy,
        kind: StateKind,
        levels: Levels,
        budget: Budget,
    ) -> None:
        self.stream, self.caches = stream, None
        self._read_ledger, self._metrics, self._policy, self._kind = read_ledger, metrics, policy, kind
        self._levels, self._budget = levels, budget
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow-caches")
        self.task = asyncio.create_task(self._run(), name="shadow-caches")

    caches: CachesBySize | None
    """None while another process runs the simulated caches."""

    def rebase(self, levels: Levels, budget: Budget) -> None:
        """Uses other levels and another budget, beginning with the next events."""
        self._levels, self._budget = levels, budget

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        await asyncio.to_thread(self._thread.shutdown)  # waits, because a long computation may be running
        self._metrics.shadow_saved_ratio.clear()
        await self.stream.close()

    async def _run(self) -> None:
        while True:
            try:
                await self._turn()
            except Exception as error:  # the caches only measure: after any error they start again, requests continue
                log.warning("the simulated caches failed and start again from the ledger", error=repr(error))
                await self._start()

    async def _turn(self) -> None:
        reading = await self.stream.read(READ_SECONDS)
        if reading.missed:
            self._metrics.shadow_cache_dropped.inc(reading.missed)
        if not reading.is_reader:
            self._stop()
            return
        if reading.is_first or self.caches is None:
            await self._start()
        await self._compute(lambda: self._take(reading.events))

    async def _start(self) -> None:
        caches = CachesBySize(self._policy, self._levels, self._kind, self._budget, self._count)
        try:
            entries, record = await self._read_ledger()
            await self._compute(lambda: caches.restore(entries, record))
        except Exception as error:
            log.warning("the simulated caches start empty: the ledger was not read", error=repr(error))
            await asyncio.sleep(READ_SECONDS)
        self.caches = caches
        log.info("simulated caches run here", entries=len(caches), key_bytes=caches.key_bytes)

    def _stop(self) -> None:
        if self.caches is not None:
            log.info("simulated caches run in another replica")
        self.caches = None
        self._metrics.shadow_saved_ratio.clear()

    def _take(self, events: Sequence[Event]) -> None:
        caches = self.caches
        assert caches is not None
        caches.rebase(self._levels, self._budget)
        for event in events:
            caches.take(event)
        ratios = caches.ratios()
        self._metrics.shadow_saved_ratio.clear()
        for multiple, ratio in ratios.items():
            self._metrics.shadow_saved_ratio.labels(f"{multiple:g}").set(ratio)

    def _count(self, multiple: float, steps: int, skipped: int) -> None:
        self._metrics.shadow_cache_steps.labels(f"{multiple:g}").inc(steps)
        self._metrics.shadow_cache_skipped.labels(f"{multiple:g}").inc(skipped)

    async def _compute(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
