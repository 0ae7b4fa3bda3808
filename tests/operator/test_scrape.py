"""What answers at a pod's address may be anything, for a pod runs whatever image its user names."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from diffcache_operator.clients import scrape
from diffcache_operator.clients.scrape import MAX_BYTES
from tests.operator.http_server import serving

OURS = "diffcache_steps_total 8\n"


def saying(text: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=text)

    return answer


async def steps_of(text: str, monkeypatch: pytest.MonkeyPatch) -> float | None:
    async with serving(saying(text)) as url:
        monkeypatch.setattr(scrape, "METRICS_PORT", int(url.rpartition(":")[2]))
        figures = await scrape.scrape(["127.0.0.1"])
    return None if figures is None else figures.steps


async def test_a_pod_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await steps_of(OURS, monkeypatch) == 8


@pytest.mark.parametrize("start", ["a{" + "b=," * 300_000 + "} 1\n", 'a{b="' + '\\"' * 450_000 + '"} 1\n'])
async def test_a_line_that_would_take_the_parser_long_is_not_parsed(
    start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    assert await steps_of(start + OURS, monkeypatch) is None
    assert time.monotonic() - began < 2


async def test_while_a_long_answer_is_parsed_the_operator_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = 0.0

    async def look() -> None:
        nonlocal longest
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - began)

    looking = asyncio.create_task(look())
    assert await steps_of("a 1\n" * ((MAX_BYTES - len(OURS)) // 4) + OURS, monkeypatch) == 8
    looking.cancel()
    assert longest < 1  # parsing takes seconds
