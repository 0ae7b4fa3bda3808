"""Limits calls that users can make slow: to a Prometheus that a resource names, and to pods of any image.

Each namespace gets only a few of the places, so slow answers of one namespace do not delay others.
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
    """A semaphore of `places` places, of which one namespace gets at most `each`. A task takes the namespace's part
    first: while it waits for that it holds no place, so at most `each` tasks of a namespace compete for the places."""

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
