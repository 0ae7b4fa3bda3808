"""What answers at a pod's address may be anything, for a pod runs whatever image its user names."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from prometheus_client import generate_latest

from diffcache_core.cache.resume import Level, Levels
from diffcache_core.names import SHADOW_OUTCOMES
from diffcache_core.net.exposition import exposition
from diffcache_core.net.http_server import HttpServer
from diffcache_operator.clients import scrape
from diffcache_operator.clients.scrape import BURST_BYTES, BYTES_PER_SECOND, MAX_BYTES, SHARE, Scraper
from diffcache_operator.exposition_lines import MAX_LINE
from diffcache_operator.figures import NAMES, parse
from diffcache_serving.metrics import Metrics
from tests.operator.http_server import Answer, serving

OURS = "diffcache_steps_total 8\n"


def saying(text: str | bytes, headers: dict[str, str] | None = None) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=text.encode() if isinstance(text, str) else text, headers=headers)

    return answer


@asynccontextmanager
async def pod(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    async with serving(answer) as url:
        monkeypatch.setattr(scrape, "METRICS_PORT", int(url.rpartition(":")[2]))
        yield


async def steps_of(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> float | None:
    async with pod(answer, monkeypatch):
        (figures,) = await Scraper().scrape("demo", ["127.0.0.1"], NAMES, parse)
    return None if figures is None else figures.steps


async def test_a_pod_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await steps_of(saying(OURS), monkeypatch) == 8


async def test_a_pod_is_asked_for_what_is_read_and_that_is_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much it has measured."""
    metrics = Metrics("stable-diffusion-v1-5/stable-diffusion-v1-5")
    metrics.steps.inc(8)
    levels = [Level(skip, 0.05 * skip) for skip in range(1, 20)]
    metrics.levels_in_force(Levels(tuple(levels)))
    for level in levels:
        for edge in range(20):
            for moment in ("c", "u", "cc", "uu", "cu"):
                metrics.quality_sum.labels(level.skip_percent, f"{edge / 20:.2f}", moment).inc()
    for outcome in SHADOW_OUTCOMES:
        metrics.shadow_runs.labels(outcome).inc()
    assert len(generate_latest(metrics.registry)) > MAX_BYTES
    server = HttpServer(exposition(metrics.registry))
    await server.start("127.0.0.1", 0)
    monkeypatch.setattr(scrape, "METRICS_PORT", server.port)
    (size,) = await Scraper().scrape("demo", ["127.0.0.1"], NAMES, len)
    (figures,) = await Scraper().scrape("demo", ["127.0.0.1"], NAMES, parse)
    server.close()
    assert size is not None
    assert size < MAX_BYTES / 10
    assert figures is not None
    assert figures.steps == 8


@pytest.mark.parametrize(
    "answer",
    [
        saying(OURS + "a 1\n" * (MAX_BYTES // 4)),
        saying("diffcache_steps_total{" + "b=," * (MAX_LINE // 3) + "} 1\n" + OURS),
        saying('diffcache_steps_total{b="' + '\\"' * MAX_LINE + '"} 1\n' + OURS),
        saying("diffcache_steps_total{b} 1\n"),
        saying("diffcache_steps_total eight\n"),
        saying(b"\xff" + OURS.encode()),
        saying(gzip.compress(OURS.encode()), {"Content-Encoding": "gzip"}),
        saying(gzip.compress(bytes(2**28)), {"Content-Encoding": "gzip"}),
    ],
    ids=["long", "labels", "quotes", "label", "value", "utf-8", "gzip", "bomb"],
)
async def test_what_no_pod_of_ours_says_is_no_answer(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await steps_of(answer, monkeypatch) is None


async def test_lines_of_others_cost_nothing_whatever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    start = 'a{b="' + '\\"' * 15_000 + "\n" + "a{" + "b=," * 5_000 + "} 1\n"
    assert await steps_of(saying(start + OURS), monkeypatch) == 8


async def test_a_namespace_has_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    scraper = Scraper(lambda: now)
    text = OURS + "a 1\n" * (MAX_BYTES // 4 - 100)

    async def read(namespace: str, pods: int) -> int:
        answers = await scraper.scrape(namespace, ["127.0.0.1"] * pods, NAMES, parse)
        return sum(answer is not None for answer in answers)

    async with pod(saying(text), monkeypatch):
        affordable = BURST_BYTES // len(text)
        assert await read("greedy", affordable + 10) == affordable
        assert await read("greedy", 1) == 0
        assert await read("other", 1) == 1
        now += 2 * len(text) / BYTES_PER_SECOND
        assert await read("greedy", 10) == 2


async def test_pods_that_hang_keep_only_their_own_namespace_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than there are places."""
    released, asked = asyncio.Event(), 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if asked <= SHARE:
            await released.wait()
        return web.Response(text=OURS)

    scraper = Scraper()
    async with pod(answer, monkeypatch):
        hanging = [
            asyncio.create_task(scraper.scrape("slow", ["127.0.0.1"], NAMES, parse)) for _ in range(2 * scrape.PLACES)
        ]
        while asked < SHARE:
            await asyncio.sleep(0)
        (told,) = await scraper.scrape("other", ["127.0.0.1"], NAMES, parse)
        assert told is not None
        assert not any(task.done() for task in hanging)
        released.set()
        await asyncio.gather(*hanging)
