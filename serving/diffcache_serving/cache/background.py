"""Background work of a request: no caller waits for it, and its failures are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from diffcache_serving.cache.events import CacheEvents, Operation

log = structlog.get_logger("diffcache.cache")


class Background:
    """Runs coroutines until `close`."""

    def __init__(self, events: CacheEvents) -> None:
        self._events = events
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, operation: Operation, work: Coroutine[Any, Any, object]) -> None:
        """Starts `work`. A failure is counted as a failed `operation`."""

        async def run() -> None:
            try:
                await work
            except Exception as error:
                self._events.operation_failed(operation)
                log.warning("work behind a request failed", operation=operation, error=repr(error))

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancels what still runs."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
