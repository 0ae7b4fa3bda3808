"""The regular background work of a server: it checks index, ledger and store, and removes what is no longer needed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from diffcache_serving.cache.cache import Cache

UPKEEP_SECONDS = 10.0
"""Maximum delay before the start or the end of an outage of an idle index is noticed. A shorter time causes more
calls."""

log = structlog.get_logger("diffcache.upkeep")


async def keep_up(
    cache: Cache, read_grace_seconds: Callable[[], float], remove_models: Callable[[float], None]
) -> None:
    """Runs until it is cancelled.

    `read_grace_seconds()` is called each time; it returns how long retired entries and models are kept.
    `remove_models(before)` is called in a thread; it removes folders of models that were retired at or before `before`
    (seconds since the epoch).
    """
    while True:
        try:
            await cache.check_store()
            before = time.time() - read_grace_seconds()
            await cache.purge_retired(before)
            await asyncio.to_thread(remove_models, before)
            await cache.sweep()
            await asyncio.sleep(UPKEEP_SECONDS)
            await cache.check_index()
        except Exception as error:  # after any error the next turn tries again, and requests continue
            log.warning("upkeep failed", error=repr(error))
            await asyncio.sleep(UPKEEP_SECONDS)
