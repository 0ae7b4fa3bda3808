"""Places for what users can make slow: questions to a Prometheus that a resource names, and to pods of any image.

Whoever waits for the answers of one namespace keeps no other waiting: a namespace has a few of the places.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass
class _Gate:
    semaphore: asyncio.Semaphore
    users: int = 0


class Shares:
    """`places` in all, of which a namespace has `each` at most. Who waits for its namespace takes up no place, and of
    those that wait for a place no namespace has more than `each`."""

    def __init__(self, places: int, each: int) -> None:
        self._places, self._each = asyncio.Semaphore(places), each
        self._gates: dict[str, _Gate] = {}

    @asynccontextmanager
    async def place(self, namespace: str) -> AsyncIterator[None]:
        gate = self._gates.setdefault(namespace, _Gate(asyncio.Semaphore(self._each)))
        gate.users += 1
        try:
            async with gate.semaphore, self._places:
                yield
        finally:
            gate.users -= 1
            if not gate.users:
                del self._gates[namespace]
