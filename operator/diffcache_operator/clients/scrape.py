"""Asks serving pods for their metrics.

A user's own image may answer anything: this code trusts neither the time, the size nor the form of an answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

import aiohttp

from diffcache_core.names import METRICS_PORT
from diffcache_operator.shares import Shares

SCRAPE_SECONDS = 5.0
MAX_BYTES = 64 * 1024
"""Bytes of an answer at most. Pods are only asked for metrics that are read: 3 KB with twenty levels."""
PLACES, SHARE = 32, 4
"""How many caches' pods are asked at once, and how many of these caches may be of one namespace. Pods that hang keep a
place for 5 s. More places allow more namespaces with such pods side by side, and take 64 KiB for each pod."""
BYTES_PER_SECOND, BURST_BYTES = 256 * 1024, 8 * 2**20
"""Budget of a namespace for answers that are parsed, and how much of it may be saved up. At 50 ns per byte the budget
is some 1 % of a core. 64 pods that are asked every 5 s answer with 40 KB a second; with a higher budget, pods that
answer too much cost more."""

Answer = TypeVar("Answer")


class Scraper:
    def __init__(self, stopwatch: Callable[[], float] = time.monotonic) -> None:
        self._shares, self._stopwatch = Shares(PLACES, SHARE), stopwatch
        self._spent: dict[str, tuple[float, float]] = {}  # by namespace: bytes owed, at which time

    async def scrape(
        self, namespace: str, addresses: Iterable[str], names: Collection[str], read: Callable[[str], Answer]
    ) -> list[Answer | None]:
        """Asks the pods at these IP addresses for the metrics with `names`, and parses each answer with `read`, which
        may raise ValueError. Returns None for each pod that does not answer, or answers what no pod of ours would."""
        query = [("name[]", name) for name in names]
        async with (
            self._shares.place(namespace),
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=SCRAPE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # a few bytes could become any number
            ) as session,
        ):
            bodies = await asyncio.gather(*(_fetch(session, address, query) for address in addresses))
        return [None if body is None else self._read(namespace, body, read) for body in bodies]

    def _read(self, namespace: str, body: bytes, read: Callable[[str], Answer]) -> Answer | None:
        if not self._may_spend(namespace, len(body)):
            return None
        try:
            return read(body.decode())
        except ValueError:
            return None

    def _may_spend(self, namespace: str, size: int) -> bool:
        now = self._stopwatch()
        if len(self._spent) > 1000:
            self._spent = {name: one for name, one in self._spent.items() if self._owed(one, now) > 0}
        owed = self._owed(self._spent.get(namespace, (0.0, now)), now)
        if owed + size > BURST_BYTES:
            return False
        self._spent[namespace] = (owed + size, now)
        return True

    @staticmethod
    def _owed(spent: tuple[float, float], now: float) -> float:
        owed, at = spent
        return max(0.0, owed - (now - at) * BYTES_PER_SECOND)


async def _fetch(session: aiohttp.ClientSession, address: str, query: list[tuple[str, str]]) -> bytes | None:
    host = f"[{address}]" if ":" in address else address
    url = f"http://{host}:{METRICS_PORT}/metrics"
    body = bytearray()
    try:
        async with session.get(
            url, params=query, allow_redirects=False, headers={"Accept-Encoding": "identity"}
        ) as response:
            if response.status != 200 or "Content-Encoding" in response.headers:
                return None
            async for chunk in response.content.iter_chunked(2**16):
                body += chunk
                if len(body) > MAX_BYTES:
                    return None
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
    return bytes(body)
