"""The stream that carries the events of requests to the one process that runs the simulated caches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from diffcache_serving.simulated_caches.events import Event

QUEUE_EVENTS = 4096
"""Maximum number of waiting events. At 512 dimensions a key takes 2 KiB, so they take 8 MiB at most. A higher value
handles longer bursts."""

BATCH_EVENTS = 64
"""Maximum number of events per read. So one turn of the worker takes some tens of milliseconds at most."""


@dataclass(frozen=True)
class Reading:
    """The result of `read`."""

    is_reader: bool  # False: another process runs the simulated caches now
    events: list[Event]
    missed: int = 0  # events lost before they could be read
    is_first: bool = False  # True for the first reading as the reader: the caches have to start from the ledger


class RequestStream(Protocol):
    """All processes put events; one process reads them. Events of one process keep their order."""

    def put(self, event: Event) -> bool:
        """Adds an event without waiting. Returns False, and drops the event, if too many events wait."""

    async def read(self, timeout: float) -> Reading:
        """Waits up to `timeout` seconds for events, or until this process becomes the reader."""

    @property
    def tasks(self) -> Sequence[asyncio.Task[None]]:
        """Returns the tasks that run until `close`."""

    async def close(self) -> None: ...


class LocalStream:
    """The stream of a process that does not share its cache. Use it on one event loop only."""

    tasks: Sequence[asyncio.Task[None]] = ()

    def __init__(self, limit: int = QUEUE_EVENTS) -> None:
        self._limit = limit
        self._waiting: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._is_first = True

    def put(self, event: Event) -> bool:
        if len(self._waiting) >= self._limit:
            return False
        self._waiting.append(event)
        self._arrived.set()
        return True

    async def read(self, timeout: float) -> Reading:
        if self._is_first:
            self._is_first = False
            return Reading(True, [], is_first=True)
        try:
            async with asyncio.timeout(timeout):
                await self._arrived.wait()
        except TimeoutError:
            return Reading(True, [])
        events = [self._waiting.popleft() for _ in range(min(BATCH_EVENTS, len(self._waiting)))]
        if not self._waiting:
            self._arrived.clear()
        return Reading(True, events)

    async def close(self) -> None:
        return None
