"""Writes the status of a resource if it changed, and Events about the changes."""

from __future__ import annotations

import logging
import time

from diffcache_core.resource.spec import DiffusionCache
from diffcache_core.resource.status import DiffusionCacheStatus
from diffcache_core.tuning.record import time_text
from diffcache_operator.clients.api import Api
from diffcache_operator.events import turns
from diffcache_operator.metadata import JSON
from diffcache_operator.metrics import Metrics
from diffcache_operator.queue import Key

log = logging.getLogger("diffcache.reconcile")

FIGURES_SECONDS = 60.0  # seconds between two writes of a status in which only figures changed


class StatusWriter:
    """Writes statuses. It remembers when it wrote figures last; a restart loses this and costs one more write."""

    def __init__(self, api: Api, metrics: Metrics) -> None:
        self._api, self._metrics = api, metrics
        self._figures_written: dict[Key, float] = {}

    def forget(self, key: Key) -> None:
        self._figures_written.pop(key, None)

    async def report(
        self, key: Key, raw: JSON, resource: DiffusionCache, old: DiffusionCacheStatus, new: DiffusionCacheStatus
    ) -> None:
        """Publishes the new status as metrics, as the resource's status and as Events. `raw`: the resource as it was
        read last. Raises ApiError."""
        self._metrics.caches.show(resource, new)
        if not await self.write(key, raw, old, new):
            return
        for event in turns(resource, old, new, time_text(time.time())):
            log.info("%s/%s: %s: %s", *key, event["reason"], event["message"])
            await self._api.create(event)

    async def write(self, key: Key, raw: JSON, old: DiffusionCacheStatus, new: DiffusionCacheStatus) -> bool:
        """Writes the status, unless nothing changed, or only figures did and they were written recently. Returns
        whether it wrote. Raises ApiError."""
        if _body(new) == raw.get("status"):
            return False
        now = time.monotonic()
        moved = new.model_copy(update={"cache": old.cache}) != old or (is_empty(old) and not is_empty(new))
        if not moved and now - self._figures_written.get(key, float("-inf")) < FIGURES_SECONDS:
            return False
        await self.replace(raw, new)
        self._figures_written[key] = now
        return True

    async def replace(self, raw: JSON, status: DiffusionCacheStatus) -> JSON:
        """Writes the status. Returns the resource as the server stored it. Raises ApiError."""
        written = await self._api.replace_status(raw | {"status": _body(status)})
        self._metrics.writes.labels("DiffusionCacheStatus").inc()
        return written


def is_empty(status: DiffusionCacheStatus) -> bool:
    """Returns whether the status shows no entries yet. A user who has just made the first pictures waits for them to
    appear."""
    return status.cache is None or status.cache.entries == 0


def _body(status: DiffusionCacheStatus) -> JSON:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)
