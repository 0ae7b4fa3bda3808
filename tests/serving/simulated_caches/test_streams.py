"""The contract of a stream of requests, in one process and over a real Redis; and what only the latter does."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcache_core.cache.states import StateKind
from diffcache_core.simulator.cache import SimulatedRequest
from diffcache_serving.cache.redis_client import RedisAccess, connect
from diffcache_serving.simulated_caches.events import (
    Answered,
    Asked,
    Event,
    Purged,
    UnreadableEvent,
    decode,
    digest,
    encode,
)
from diffcache_serving.simulated_caches.redis_stream import STREAM_EVENTS, RedisStream
from diffcache_serving.simulated_caches.stream import LocalStream, Reading, RequestStream
from tests.serving.cache.redis_server import RedisServer

WAIT = 1.0  # seconds that a read may wait; it comes back as soon as it has something

Open = Callable[..., RequestStream]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.start()


@pytest.fixture(params=["local", pytest.param("redis", marks=pytest.mark.shared)])
async def open_stream(request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Each call opens a stream; those over Redis are replicas of one cache."""
    opened: list[RequestStream] = []
    name = uuid.uuid4().hex

    def make(limit: int = 100) -> RequestStream:
        if request.param == "local":
            opened.append(LocalStream(limit))
        else:
            server = request.getfixturevalue("redis")
            opened.append(RedisStream(connect(RedisAccess(server.address)), name, limit=limit))
        return opened[-1]

    yield make
    for stream in opened:
        await stream.close()


def purges(names: str) -> list[Event]:
    return [Purged(entry=name) for name in names]


async def become_reader(stream: RequestStream) -> None:
    reading = await stream.read(WAIT)
    while not reading.is_first:
        reading = await stream.read(WAIT)


async def read(stream: RequestStream, count: int) -> list[Event]:
    events: list[Event] = []
    while len(events) < count:
        reading = await stream.read(WAIT)
        assert reading.is_reader
        events += reading.events
    return events


async def test_events_come_in_order(open_stream: Open) -> None:
    stream = open_stream(limit=1000)
    await become_reader(stream)
    wanted: list[Event] = [Purged(entry=str(i)) for i in range(500)]
    assert all(map(stream.put, wanted))
    assert await read(stream, 500) == wanted


async def test_the_first_reading_says_so_once(open_stream: Open) -> None:
    stream = open_stream()
    await become_reader(stream)
    assert await stream.read(0.01) == Reading(True, [])


async def test_too_much_is_refused_and_the_rest_arrives(open_stream: Open) -> None:
    stream = open_stream(limit=3)
    await become_reader(stream)
    assert [stream.put(event) for event in purges("abcd")] == [True, True, True, False]
    assert await read(stream, 3) == purges("abc")
    assert stream.put(Purged(entry="e"))
    assert await read(stream, 1) == purges("e")


@st.composite
def events(draw: st.DrawFn) -> Event:
    tenant, text, ticket = (digest(draw(st.text(max_size=5))) for _ in range(3))
    kind = draw(st.sampled_from(["asked", "answered", "purged"]))
    if kind == "answered":
        sizes = draw(st.dictionaries(st.sampled_from(list(StateKind)), st.integers(0, 2**40)))
        return Answered(ticket.hex(), draw(st.booleans()), draw(st.text(max_size=8)), sizes)
    if kind == "purged":
        return Purged(tenant, text, draw(st.text(max_size=8)))
    request = SimulatedRequest(
        tenant,
        text,
        draw(st.integers(0, 2**63 - 1)),
        draw(st.integers(1, 1000)),
        seed_is_explicit=draw(st.booleans()),
        reads=draw(st.booleans()),
        writes=draw(st.booleans()),
        min_similarity=draw(st.floats(-1, 1)),
        max_skip=draw(st.integers(0, 100)),
    )
    key = np.asarray(draw(st.lists(st.floats(-1, 1, width=32), max_size=8)), np.float32)
    return Asked(ticket.hex(), digest("space"), request, key, tenant, text)


@given(events())
def test_events_survive_as_bytes(event: Event) -> None:
    again = decode(encode(event))
    if isinstance(event, Asked):
        assert isinstance(again, Asked)
        assert np.array_equal(again.key, event.key)
        assert encode(again) == encode(event)
        assert again.request == event.request
    else:
        assert again == event


@given(st.binary(max_size=40) | events().map(lambda event: encode(event)[:-3]))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(UnreadableEvent):
        decode(data)


# ---- over Redis ------------------------------------------------------------------------------------------------------

Replica = Callable[..., RedisStream]


@pytest.fixture
async def replica(redis: RedisServer) -> AsyncIterator[Replica]:
    opened: list[RedisStream] = []
    name = uuid.uuid4().hex
    with redis.client() as client:
        client.flushall()

    def make(server: RedisServer = redis, **options: Any) -> RedisStream:
        opened.append(RedisStream(connect(RedisAccess(server.address)), name, **options))
        return opened[-1]

    yield make
    for stream in opened:
        await stream.close()


@pytest.mark.shared
async def test_one_reads_what_all_put(replica: Replica) -> None:
    one, other = replica(), replica()
    await become_reader(one)
    assert await other.read(0.01) == Reading(False, [])
    for event in purges("ab"):
        other.put(event)
    one.put(Purged(entry="c"))
    got = await read(one, 3)
    assert sorted(event.entry for event in got if isinstance(event, Purged)) == ["a", "b", "c"]
    assert [event for event in got if event in purges("ab")] == purges("ab")


@pytest.mark.shared
async def test_another_takes_over_when_the_reader_leaves(replica: Replica) -> None:
    one, other = replica(), replica()
    await become_reader(one)
    assert not (await other.read(0.01)).is_reader
    await one.close()
    await become_reader(other)
    other.put(Purged(entry="a"))
    assert await read(other, 1) == purges("a")


@pytest.mark.shared
async def test_another_takes_over_when_the_reader_is_gone_without_a_word(replica: Replica) -> None:
    one, other = replica(lease_seconds=0.2), replica(lease_seconds=0.2)
    await become_reader(one)
    await become_reader(other)  # the lease runs out, for nobody renews it
    assert not (await one.read(0.01)).is_reader


@pytest.mark.shared
async def test_a_reader_that_reads_on_stays_the_reader(replica: Replica) -> None:
    one, other = replica(lease_seconds=1.0), replica(lease_seconds=1.0)
    await become_reader(one)
    ends = asyncio.get_running_loop().time() + 2.5  # more than two leases
    while asyncio.get_running_loop().time() < ends:
        readings = await asyncio.gather(one.read(0.1), other.read(0.1))
        assert [reading.is_reader for reading in readings] == [True, False]


@pytest.mark.shared
async def test_what_redis_no_longer_holds_is_counted(replica: Replica, redis: RedisServer) -> None:
    one, other = replica(limit=100), replica(limit=STREAM_EVENTS)
    await become_reader(one)
    other.put(Purged(entry="first"))
    assert await read(one, 1) == purges_of("first")
    late = [Purged(entry=str(i)) for i in range(50)]
    assert all(map(other.put, late))
    with redis.client() as client:
        (stream,) = client.keys("*shadow-events*")
        await until(lambda: asyncio.to_thread(lambda: client.xlen(stream) >= 51))
        client.xtrim(stream, maxlen=10, approximate=False)
    reading = await one.read(WAIT)
    assert (reading.events, reading.missed) == (late[-10:], 40)


@pytest.mark.shared
async def test_redis_out_of_reach_costs_events_and_nothing_else(replica: Replica, tmp_path: Path) -> None:
    dropped: list[float] = []
    with RedisServer(tmp_path) as server:
        server.start()
        stream = replica(server, on_dropped=dropped.append)
        await become_reader(stream)
        server.kill()
        assert stream.put(Purged(entry="lost"))
        assert not (await stream.read(0.01)).is_reader
        await until(lambda: asyncio.sleep(0.01, dropped == [1]))
        server.start()
        await become_reader(stream)
        stream.put(Purged(entry="a"))
        assert await read(stream, 1) == purges("a")


def purges_of(*names: str) -> list[Event]:
    return [Purged(entry=name) for name in names]


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    while not await holds():
        await asyncio.sleep(0.01)
