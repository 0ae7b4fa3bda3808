"""Asks serving pods for their metrics.

A pod runs whatever image its user names, so neither the time, the size nor the form of its answer is to be relied on.
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
"""Of an answer. Only what is read is asked for, which is 3 KB with twenty levels."""
PLACES, SHARE = 32, 4
"""Caches whose pods are asked at once, and how many of them may be of one namespace. Pods that hang keep a place for
5 s; more places let more namespaces with such pods stand side by side, and take 64 KiB a pod."""
BYTES_PER_SECOND, BURST_BYTES = 256 * 1024, 8 * 2**20
"""Of the answers of a namespace's pods that are read: its budget, at 50 ns a byte some 1 % of a core, and what it may
save up. 64 pods that are asked every 5 s answer with 40 KB a second; a higher budget lets pods that say too much cost
more."""

Answer = TypeVar("Answer")


class Scraper:
    def __init__(self, stopwatch: Callable[[], float] = time.monotonic) -> None:
        self._shares, self._stopwatch = Shares(PLACES, SHARE), stopwatch
        self._spent: dict[str, tuple[float, float]] = {}  # by namespace: bytes owed, at which time

    async def scrape(
        self, namespace: str, addresses: Iterable[str], names: Collection[str], read: Callable[[str], Answer]
    ) -> list[Answer | None]:
        """What the pods at these IP addresses report of the metrics with `names`, as `read` has it, which may raise
        ValueError; None for one that does not answer, or not with what a pod of ours would say."""
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
