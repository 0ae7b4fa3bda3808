"""Asks serving pods for their metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import aiohttp

from diffcache_core.names import METRICS_PORT
from diffcache_operator.figures import Figures, add, parse

SCRAPE_SECONDS = 5.0
MAX_BYTES = 2**20
"""A pod runs whatever image its user names, so neither the size of its answer nor its form is to be relied on."""


async def scrape(addresses: Iterable[str]) -> Figures | None:
    """Figures of the pods at these IP addresses; None if none of them answers."""
    timeout = aiohttp.ClientTimeout(total=SCRAPE_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        answers = await asyncio.gather(*(_fetch(session, address) for address in addresses))
    told = [figures for figures in answers if figures is not None]
    return add(told) if told else None


async def _fetch(session: aiohttp.ClientSession, address: str) -> Figures | None:
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
        return parse(body.decode())
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
