"""Two caches, as of two processes, on one Redis, one bucket and one Milvus Lite."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diffcache_core.cache.budget import Budget
from diffcache_core.generation import GenerationRequest
from diffcache_core.serving_config import StoreConfig
from diffcache_serving.cache.index import Index, IndexRow, LayeredIndex, MemoryIndex
from diffcache_serving.cache.ledger import Target
from diffcache_serving.cache.ledger_redis import RedisLedger
from diffcache_serving.cache.milvus import MilvusIndex, collection_name, collection_prefix
from diffcache_serving.cache.milvus_lite import MilvusLite
from diffcache_serving.cache.redis_client import RedisAccess
from diffcache_serving.cache.s3 import S3StateStore
from diffcache_serving.values.found import Exact, Miss, Resume
from tests.serving.cache.box import STATE_BYTES, Box, latent_of, seeded, states, text
from tests.serving.cache.redis_server import RedisServer
from tests.serving.cache.s3_server import S3Server

pytestmark = pytest.mark.shared
Pods = Callable[..., Any]


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusLite]:
    child = MilvusLite(tmp_path_factory.mktemp("lite") / "milvus")
    yield child
    child.stop()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server.start()


@pytest.fixture
async def pods(redis: RedisServer, bucket: StoreConfig, lite: MilvusLite, tmp_path: Path) -> AsyncIterator[Pods]:
    opened: list[Box] = []
    prefix = uuid.uuid4().hex

    async def start(index: Index | None = None, **options: Any) -> Box:
        ledger = await RedisLedger.open(RedisAccess(redis.address), prefix)

        def siblings() -> str:
            if not ledger.id:
                raise LookupError("no ledger yet")
            return collection_prefix("shared", ledger.id)

        def name() -> str:
            return collection_name(siblings(), options.get("model", "f00d") * 16, 2)

        backing = MilvusIndex(lite.uri, name, 2, siblings=siblings, flushes=False)
        box = Box(tmp_path / f"pod{len(opened)}")
        opened.append(box)
        layered = LayeredIndex(backing, lambda operation, error: None, shared=True)
        return await box.open(index=index or layered, ledger=ledger, store=S3StateStore(bucket), **options)

    yield start
    for box in opened:
        await box.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.02)


async def resumed(box: Box, request: GenerationRequest, angle: float) -> bool:
    return isinstance(await box.look_up(request, text(angle)), Resume)


async def test_what_one_writes_another_resumes(pods: Pods, request_: GenerationRequest) -> None:
    one, two = await pods(), await pods()
    kept = await one.keep(request_, text(0), 1.0)
    exact = await two.look_up(request_, text(0))
    assert isinstance(exact, Exact)
    assert (exact.parent, latent_of(exact)) == (kept, 1.0)
    await until(lambda: resumed(two, seeded(request_, 2), 10))
    await two.cache.check_index()
    assert two.count("entries") == 1
    assert two.count("cache_bytes") == STATE_BYTES
    listed, total = await two.cache.list_entries(Target(), 9)
    assert ([e.id for e in listed], total) == ([kept], 1)


async def test_what_one_evicts_is_gone_everywhere(
    pods: Pods, request_: GenerationRequest, bucket: StoreConfig, s3_server: S3Server
) -> None:
    small = Budget(2 * STATE_BYTES, 9)
    one, two = await pods(budget=small), await pods(budget=small)
    await one.keep(request_, text(0), 1.0)
    await until(lambda: resumed(two, seeded(request_, 2), 10))
    for number in (5, 6):
        await two.keep(seeded(request_, number), text(90 * number + 5), 2.0)
    assert len(s3_server.files(bucket)) == 2
    assert two.count("evictions_total", reason="capacity") == 1
    for pod in (one, two):
        assert isinstance(await pod.look_up(request_, text(0)), Miss)


async def test_a_purge_by_one_reaches_what_runs_in_another(pods: Pods, request_: GenerationRequest) -> None:
    one, two = await pods(), await pods()
    await one.keep(request_, text(0), 1.0)
    found = await two.look_up(request_, text(0))
    similar = seeded(request_, 2)
    await until(lambda: resumed(two, similar, 10))
    found = await two.look_up(similar, text(10))
    assert (await one.cache.purge(Target(prompt=request_.prompt))).entries == 1
    await two.keep(similar, text(10), 2.0, found)  # its run goes on meanwhile
    assert (await two.cache.totals()).entries == 0
    assert two.count("states_dropped_total", reason="purged") == 1


@pytest.mark.parametrize("other", [{"dtype": "float16"}, {"model": "beef", "embedder": "f"}], ids=["dtype", "model"])
async def test_while_pods_are_replaced_old_ones_serve_on(
    other: dict[str, Any], pods: Pods, request_: GenerationRequest
) -> None:
    old = await pods()
    await old.keep(request_, text(0), 1.0)
    new = await pods(**other)
    assert isinstance(await new.look_up(request_, text(0)), Miss)
    mine = await new.keep(request_, text(0), 2.0)
    for pod in (old, new):  # as at a start, and after an outage
        pod.cache._outages_repaired = None
        await pod.cache.check_index()
    await new.cache.purge_retired(before=time.time() - 3600)
    await until(lambda: resumed(old, seeded(request_, 2), 10))
    await until(lambda: resumed(new, seeded(request_, 2), 10))
    later = await old.keep(seeded(request_, 3), text(90), 3.0)
    assert isinstance(await old.look_up(seeded(request_, 3), text(90)), Exact)
    await new.cache.purge_retired(before=time.time() + 3600)
    listed = [e.id for e in (await new.cache.list_entries(Target(), 9))[0]]
    assert listed == [mine]
    assert later not in listed


async def test_the_sweep_removes_what_killed_pods_left_and_nothing_younger(
    pods: Pods, request_: GenerationRequest, bucket: StoreConfig, s3_server: S3Server
) -> None:
    one = await pods(index=MemoryIndex())
    whole = await one.keep(request_, text(0), 1.0)
    lost = await one.keep(seeded(request_, 2), text(90), 2.0)
    unindexed = await one.keep(seeded(request_, 3), text(180), 3.0)
    store = S3StateStore(bucket)
    for name in ("aa" * 16, "bb" * 16):
        await store.put(name, b"bytes without a row")
    lost_state = (await one.ledger.entries([lost]))[lost].states[0].id
    for file in s3_server.files(bucket):
        if file.stem == lost_state:
            file.unlink()
        elif file.stem != "bb" * 16:  # that one may be about to be inserted
            os.utime(file, (1000.0, 1000.0))
    space = (await one.ledger.entries([whole]))[whole].space
    await one.index.insert([IndexRow("dead", space, text(0).key)])
    await one.index.delete([unindexed])
    two = await pods(index=one.index)
    await two.cache.sweep()
    assert await one.index.entry_ids() == {whole, unindexed}
    assert {file.stem for file in s3_server.files(bucket)} == {
        "bb" * 16,
        *(s.id for e in (await one.ledger.entries([whole, unindexed])).values() for s in e.states),
    }
    assert two.count("states_dropped_total", reason="missing") == 1
    await store.put("cc" * 16, b"x")
    os.utime(next(f for f in s3_server.files(bucket) if f.stem == "cc" * 16), (1000.0, 1000.0))
    await one.cache.sweep()
    assert "cc" * 16 in await store.listed(), "only one pod, and once in a while"


async def test_without_redis_requests_miss_and_all_comes_back(
    pods: Pods, request_: GenerationRequest, redis: RedisServer
) -> None:
    one = await pods()
    await one.keep(request_, text(0), 1.0)
    redis.kill()
    assert isinstance(await one.look_up(request_, text(0)), Miss)
    assert one.count("index_errors_total", op="look_up") == 1
    assert await one.keep(seeded(request_, 2), text(90), 2.0)
    assert one.count("states_dropped_total", reason="ledger") == 1
    late = await pods()  # a pod that starts meanwhile
    assert isinstance(await late.look_up(request_, text(0)), Miss)
    redis.start()
    for pod in (one, late):
        for _ in range(3):  # the first one may find the other contents
            await pod.cache.check_index()
    assert await one.index.entry_ids() == set(), "the rows of the ledger that was lost"
    kept = await late.keep(seeded(request_, 3), text(0), 3.0)
    exact = await one.look_up(seeded(request_, 3), text(0))
    assert isinstance(exact, Exact)
    assert exact.parent == kept
    await until(lambda: resumed(one, seeded(request_, 4), 10))


async def test_without_the_bucket_requests_miss_and_nothing_is_taken_for_lost(
    pods: Pods, request_: GenerationRequest, bucket: StoreConfig, s3_server: S3Server
) -> None:
    one = await pods()
    await one.keep(request_, text(0), 1.0)
    s3_server.remove_bucket(bucket)
    assert isinstance(await one.look_up(request_, text(0)), Miss)
    one.cache.keep(one.cache.query(seeded(request_, 2), text(90)), Miss(), states(2.0))
    await one.cache.settle()
    assert one.count("states_dropped_total", reason="error") == 1
    assert (await one.cache.totals()).entries == 1
