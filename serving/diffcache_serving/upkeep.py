"""What a server does beside its requests: it looks after index, ledger and store, and lets go of what nobody needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from diffcache_serving.cache.cache import Cache

UPKEEP_SECONDS = 10.0
"""How late an outage of an idle index, or its end, is noticed. A shorter time asks more often for nothing."""

log = structlog.get_logger("diffcache.upkeep")


async def keep_up(
    cache: Cache, read_grace_seconds: Callable[[], float], remove_models: Callable[[float], None]
) -> None:
    """Until it is cancelled. `read_grace_seconds()`: how long what is retired is kept, asked anew each time.

    `remove_models(before)` removes folders of models retired before then (seconds since the epoch), in a thread.
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
        except Exception as error:  # whatever it is, the next turn tries again, and requests go on
            log.warning("upkeep failed", error=repr(error))
            await asyncio.sleep(UPKEEP_SECONDS)
