"""Deletes bytes from the store, and remembers the bytes that could not be deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from diffcache_core.foreign import quoted
from diffcache_serving.cache.events import CacheEvents
from diffcache_serving.cache.store import NotDeleted, StateStore

REMEMBERED = 100_000
"""Maximum number of remembered ids; they take 10 MB of memory. A sweep finds the rest: for a shared store every hour,
for a volume at the next start."""

log = structlog.get_logger("diffcache.cache")


class Deletions:
    """The deletions of one store. No method raises an error of the store."""

    def __init__(self, store: StateStore, events: CacheEvents) -> None:
        self._store, self._events = store, events
        self._left: dict[str, None] = {}  # ids that were not deleted, in the order of the next tries
        self._lock = asyncio.Lock()

    async def delete(self, state_ids: Iterable[str]) -> None:
        """Deletes states. Ids that fail stay on the list, in the metric and in the condition `StoreReady`."""
        try:
            await self._store.delete(state_ids)
        except NotDeleted as error:
            self._events.operation_failed("delete")
            self._left.update(dict.fromkeys(error.state_ids))
            for state_id in list(self._left)[REMEMBERED:]:
                del self._left[state_id]
            log.warning("bytes were not deleted; tried again", states=len(error.state_ids), error=quoted(str(error)))
        self._events.undeleted(len(self._left))

    async def retry(self) -> None:
        """Tries again to delete what is on the list. Does nothing while another retry runs."""
        if not self._left or self._lock.locked():
            return
        async with self._lock:
            tried, self._left = self._left, {}
            await self.delete(tried)
