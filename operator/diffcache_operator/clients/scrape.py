"""Asks serving pods for their metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

import aiohttp

from diffcache_core.names import METRICS_PORT
from diffcache_operator.figures import Figures, add, parse

SCRAPE_SECONDS = 5.0
MAX_BYTES = 2**20
"""A pod runs whatever image its user names, so neither the size of its answer nor its form is to be relied on."""

MAX_LINE_BYTES = 2048
"""A line of ours has a few hundred. The parser's time grows with the square of a line's length: 1 MiB took it 25 s."""

Told = TypeVar("Told")


async def scrape(addresses: Iterable[str]) -> Figures | None:
    """Figures of the pods at these IP addresses; None if none of them answers."""
    told = [figures for figures in await scrape_each(addresses, parse) if figures is not None]
    return add(told) if told else None


async def scrape_each(addresses: Iterable[str], read: Callable[[str], Told]) -> list[Told | None]:
    """What each pod tells, as `read` has it, which may raise ValueError; None for one that does not answer."""
    timeout = aiohttp.ClientTimeout(total=SCRAPE_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        return await asyncio.gather(*(_fetch(session, address, read) for address in addresses))


async def _fetch(session: aiohttp.ClientSession, address: str, read: Callable[[str], Told]) -> Told | None:
    host = f"[{address}]" if ":" in address else address
    url = f"http://{host}:{METRICS_PORT}/metrics"
    body = b""
    try:
        async with session.get(url, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as response:
            if response.status != 200 or "Content-Encoding" in response.headers:
                return None
            async for chunk in response.content.iter_chunked(2**16):
                body += chunk
                if len(body) > MAX_BYTES:
                    return None
        if any(len(line) > MAX_LINE_BYTES for line in body.split(b"\n")):
            return None
        return await asyncio.to_thread(read, body.decode())  # seconds, of a pod that makes it hard
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
