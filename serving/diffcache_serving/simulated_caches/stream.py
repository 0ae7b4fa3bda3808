"""How events of requests reach the one process that runs the simulated caches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from diffcache_serving.simulated_caches.events import Event

QUEUE_EVENTS = 4096
"""Events that wait. At 512 dimensions a key takes 2 KiB, so they take 8 MiB at most; more survive longer bursts."""

BATCH_EVENTS = 64
"""Events taken at once: a turn of the worker then takes some tens of milliseconds at most."""


@dataclass(frozen=True)
class Reading:
    """What `read` comes back with."""

    is_reader: bool  # False: another process runs the simulated caches now
    events: list[Event]
    missed: int = 0  # events lost before they could be read
    is_first: bool = False  # the first since this process is the reader: it has to start from the ledger


class RequestStream(Protocol):
    """One process reads what all of them put. Events of one process keep their order."""

    def put(self, event: Event) -> bool:
        """Never waits. False: too much waits already, and the event is dropped."""

    async def read(self, timeout: float) -> Reading:
        """Waits up to `timeout` seconds for events, or for the turn to be the reader."""

    @property
    def tasks(self) -> Sequence[asyncio.Task[None]]:
        """Those that run until `close`."""

    async def close(self) -> None: ...


class LocalStream:
    """Of a process that shares its cache with nobody. To be used on one event loop."""

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
