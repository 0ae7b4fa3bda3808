"""The Python client, waiting and awaited."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

import diffcache
from diffcache import AsyncClient, CacheMode, Client, GenerationError, ImageFormat, Progress, Result
from diffcache.admin import AdminClient
from diffcache_core.pb import diffcache_pb2 as pb


def test_a_picture_and_the_truth_about_it(up: Any) -> None:
    with Client(up.server) as client:
        made = client.generate("honeybee, noto style", seed=11, steps=3, width=32, height=32)
        assert made.image.size == (32, 32)
        assert (made.result, made.seed, made.steps, made.format) == (Result.MISS, 11, 3, ImageFormat.PNG)
        again = client.generate("honeybee, noto style", seed=11, steps=3, width=32, height=32)
        assert (again.result, again.data, again.entry_id) == (Result.EXACT, made.data, made.entry_id)


def test_the_stream_ends_with_the_picture(up: Any) -> None:
    with Client(up.server) as client:
        *steps, last = client.stream("ant, noto style", steps=3, cache_mode=CacheMode.BYPASS)
    assert steps == [Progress(i, 3, 0) for i in range(4)]
    assert isinstance(last, diffcache.Generation)


async def test_the_same_awaited(up: Any) -> None:
    async with AsyncClient(up.server, tenant="async") as client:
        made = await client.generate("snail, flat style", seed=1, steps=2)
        events = [event async for event in client.stream("snail, flat style", seed=1, steps=2)]
    assert made.result is Result.MISS
    assert isinstance(events[-1], diffcache.Generation)
    assert events[-1].result is Result.EXACT


async def test_leaving_a_stream_early_ends_the_run(up: Any) -> None:
    async with AsyncClient(up.server) as client:
        stream = client.stream("ant, noto style", steps=900, cache_mode=CacheMode.BYPASS)
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]  # an async generator
        with AdminClient(up.admin) as admin:
            while admin.call("GetStats", pb.GetStatsRequest()).pending_steps:
                await asyncio.sleep(0.02)


def test_refusals_are_typed(up: Any) -> None:
    with Client(up.server) as client:
        with pytest.raises(GenerationError) as caught:
            client.generate("", steps=0)
        assert caught.value.code == "INVALID_ARGUMENT"
        assert [v.field for v in caught.value.violations] == ["prompt", "steps"]
        with pytest.raises(GenerationError) as caught:
            client.generate("a lone \ud800 surrogate")
        assert [v.field for v in caught.value.violations] == ["prompt"]
        with pytest.raises(GenerationError, match="steps"):
            client.generate("cat", steps=-1)
        with pytest.raises(GenerationError) as caught:
            client.generate("cat", steps=900, timeout=0.05, cache_mode=CacheMode.BYPASS)
        assert caught.value.code == "DEADLINE_EXCEEDED"


def test_unavailable_is_retried_for_the_time_given_and_then_said() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{nobody.getsockname()[1]}"
        with Client(target, retry_seconds=0.3) as client, pytest.raises(GenerationError) as caught:
            client.generate("cat")
    assert caught.value.code == "UNAVAILABLE"
