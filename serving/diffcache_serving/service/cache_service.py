"""Admin operations on the cache: statistics, list of entries, purge."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from diffcache_core.cache.resume import Levels
from diffcache_core.cache.states import Entry
from diffcache_core.generation import InvalidRequest, Violation
from diffcache_serving.cache.cache import Cache
from diffcache_serving.cache.ledger import Target, Totals
from diffcache_serving.metrics import Metrics
from diffcache_serving.queueing import StepQueue
from diffcache_serving.values.hot_config import HotConfig

LIST_LIMIT, LIST_MAX = 100, 1000

log = structlog.get_logger("diffcache.request")


@dataclass(frozen=True)
class Stats:
    requests: dict[str, int]  # by result, in lower case, plus `error`
    steps: int  # steps of all answered requests, both run and skipped
    steps_skipped: int
    held: Totals
    capacity_bytes: int
    pending_steps: int
    levels: Levels
    levels_source: str
    tuning: str

    @property
    def steps_saved_ratio(self) -> float:
        return self.steps_skipped / self.steps if self.steps else 0.0


class CacheService:
    def __init__(
        self,
        cache: Cache,
        queue: StepQueue,
        metrics: Metrics,
        levels_source: str,
        on_purge: Callable[[Target], None] = lambda target: None,
    ) -> None:
        """`on_purge` is called after every purge."""
        self._cache, self._queue, self._metrics, self._on_purge = cache, queue, metrics, on_purge
        self.levels_source = levels_source  # replaced when the config changes
        self.tuning = ""  # the record of a tuner in this process, as JSON

    async def apply(self, hot: HotConfig) -> None:
        self.levels_source = hot.levels_source

    async def stats(self) -> Stats:
        """Raises LedgerUnavailable."""
        totals = await self._cache.totals()
        return Stats(
            requests={
                name: self._metrics.requests(name) for name in ("exact", "approximate", "miss", "bypass", "error")
            },
            steps=self._metrics.value("diffcache_steps_total"),
            steps_skipped=self._metrics.value("diffcache_steps_skipped_total"),
            held=totals,
            capacity_bytes=int(self._cache.budget.bytes),
            pending_steps=math.ceil(self._queue.pending_steps),
            levels=self._cache.levels,
            levels_source=self.levels_source,
            tuning=self.tuning,
        )

    async def list_entries(self, target: Target, limit: int) -> tuple[list[Entry], int]:
        """Returns the newest `limit` matching entries, and how many entries match in total.

        A `limit` of 0 means LIST_LIMIT. Raises InvalidRequest if `limit` exceeds LIST_MAX, or LedgerUnavailable.
        """
        if limit > LIST_MAX:
            raise InvalidRequest([Violation("limit", f"must be at most {LIST_MAX}, is {limit}")])
        return await self._cache.list_entries(target, limit or LIST_LIMIT)

    async def purge(self, target: Target, kind: str) -> Totals:
        """Purges and returns how much was removed. `kind` names the type of target for the log.

        Raises LedgerUnavailable.
        """
        purged = await self._cache.purge(target)
        self._on_purge(target)
        log.info("purged", target=kind, entries=purged.entries, bytes=purged.bytes)
        return purged
