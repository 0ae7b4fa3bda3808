"""Asks serving pods for their metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import aiohttp

from diffcache_core.names import METRICS_PORT
from diffcache_operator.figures import Figures, add, parse

SCRAPE_SECONDS = 5.0


async def scrape(addresses: Iterable[str]) -> Figures | None:
    """Figures of the pods at these IP addresses; None if none of them answers."""
    timeout = aiohttp.ClientTimeout(total=SCRAPE_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        texts = await asyncio.gather(*(_fetch(session, address) for address in addresses))
    told = [parse(text) for text in texts if text is not None]
    return add(told) if told else None


async def _fetch(session: aiohttp.ClientSession, address: str) -> str | None:
    host = f"[{address}]" if ":" in address else address
    try:
        async with session.get(f"http://{host}:{METRICS_PORT}/metrics") as response:
            return await response.text() if response.status == 200 else None
    except (TimeoutError, aiohttp.ClientError, UnicodeDecodeError):
        return None
