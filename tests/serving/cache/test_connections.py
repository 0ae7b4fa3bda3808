"""Whatever fails and is tried again leaves no connection behind: descriptors are counted over many outages."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from pymilvus.client.connection_manager import ConnectionManager
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc

from diffcache_core.choices import StoreType
from diffcache_core.serving_config import StoreConfig
from diffcache_serving.cache.index import IndexUnavailable
from diffcache_serving.cache.ledger import LedgerUnavailable
from diffcache_serving.cache.ledger_redis import RedisLedger
from diffcache_serving.cache.milvus import MilvusIndex
from diffcache_serving.cache.redis_client import RedisAccess, connect
from diffcache_serving.cache.s3 import S3StateStore
from diffcache_serving.simulated_caches.redis_stream import RedisStream
from tests.serving.cache.redis_server import RedisServer

OUTAGES = 30
SPARE = 6
"""Descriptors that a library may hold at the end: pools and pollers, not one for each outage."""


class HangsUp:
    """Accepts connections, reads a little, and hangs up. A context manager."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.accepted = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            with connection:
                self.accepted += 1
                connection.recv(10)


@pytest.fixture
def hangs_up() -> Iterator[HangsUp]:
    with HangsUp() as server:
        yield server


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def assert_no_leak(fail: Callable[[], Awaitable[None]], outages: int = OUTAGES) -> None:
    """`fail()` once opens what a library keeps; from then on the number of descriptors stays."""
    await fail()
    before = descriptors()
    for _ in range(outages):
        await fail()
    for _ in range(100):  # what is closed in another thread may take a moment
        if descriptors() <= before + SPARE:
            break
        await asyncio.sleep(0.05)
    assert descriptors() <= before + SPARE


def milvus_connections() -> int:
    """As pymilvus counts them: they keep buffers, and share descriptors as long as the address is the same."""
    return int(ConnectionManager.get_instance().get_stats()["total_connections"])


class Moody(milvus_pb2_grpc.MilvusServiceServicer):  # type: ignore[misc]  # pymilvus ships no types
    """A Milvus that answers until it is asked for something in `fails`."""

    def __init__(self) -> None:
        self.fails: set[str] = set()
        self.connects = 0

    def _status(self, name: str) -> Any:
        if name in self.fails:  # pymilvus gives up at once, where it would repeat after an error of gRPC
            return common_pb2.Status(error_code=common_pb2.UnexpectedError, code=65535, reason=f"{name} fails")
        return common_pb2.Status()

    def Connect(self, request: Any, context: Any) -> Any:
        self.connects += 1
        return milvus_pb2.ConnectResponse(status=self._status("Connect"), identifier=1)

    def DescribeCollection(self, request: Any, context: Any) -> Any:
        return milvus_pb2.DescribeCollectionResponse(status=self._status("DescribeCollection"))

    def LoadCollection(self, request: Any, context: Any) -> Any:
        return self._status("LoadCollection")

    def GetLoadingProgress(self, request: Any, context: Any) -> Any:
        return milvus_pb2.GetLoadingProgressResponse(status=common_pb2.Status(), progress=100)

    def ShowCollections(self, request: Any, context: Any) -> Any:
        return milvus_pb2.ShowCollectionsResponse(status=self._status("ShowCollections"), collection_names=["c"])


@pytest.fixture
def moody() -> Iterator[tuple[Moody, str]]:
    server, milvus = grpc.server(ThreadPoolExecutor(4)), Moody()
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(milvus, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield milvus, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize("failing", ["Connect", "DescribeCollection", "LoadCollection", "ShowCollections"])
async def test_a_milvus_that_fails(failing: str, moody: tuple[Moody, str]) -> None:
    milvus, uri = moody
    index = MilvusIndex(lambda: uri, "c", 2, call_seconds=2.0, siblings="c")
    milvus.fails, before = {failing}, milvus_connections()

    async def fail() -> None:
        with pytest.raises(IndexUnavailable):
            await index.forget_models(set())

    await assert_no_leak(fail)
    assert milvus.connects > OUTAGES
    milvus.fails = set()
    await index.forget_models(set())
    assert milvus_connections() == before + 1
    await index.close()
    assert milvus_connections() == before


async def test_a_collection_of_another_name_every_time(moody: tuple[Moody, str]) -> None:
    names = (f"c{i}" for i in range(1000))
    index = MilvusIndex(lambda: moody[1], lambda: next(names), 2, call_seconds=2.0)

    async def move() -> None:
        await index.ping()

    before = milvus_connections()
    await assert_no_leak(move)
    assert milvus_connections() == before + 1
    await index.close()


async def test_a_call_under_way_keeps_its_connection_when_another_fails(moody: tuple[Moody, str]) -> None:
    milvus, uri = moody
    index = MilvusIndex(lambda: uri, "c", 2, call_seconds=5.0)
    reached, go_on = threading.Event(), threading.Event()

    def slow(client: Any) -> str:
        reached.set()
        go_on.wait()
        return ",".join(client.list_collections(timeout=5.0))

    first = asyncio.create_task(index._call(slow))
    await asyncio.to_thread(reached.wait)
    milvus.fails = {"DescribeCollection"}
    with pytest.raises(IndexUnavailable):
        await index.ping()
    go_on.set()
    assert await first == "c"
    await index.close()


async def test_a_milvus_that_hangs_up(hangs_up: HangsUp) -> None:
    index = MilvusIndex(lambda: f"http://127.0.0.1:{hangs_up.port}", "c", 2, call_seconds=0.2)

    async def fail() -> None:
        with pytest.raises(IndexUnavailable):
            await index.ping()

    await assert_no_leak(fail, outages=10)
    await index.close()


async def test_a_redis_that_hangs_up(hangs_up: HangsUp) -> None:
    access = RedisAccess(f"redis://127.0.0.1:{hangs_up.port}/0")
    ledger = RedisLedger(access, "a/b")

    async def fail() -> None:
        with pytest.raises(LedgerUnavailable):
            await ledger.check()
        stream = RedisStream(connect(access), "diffcache:a/b")
        await stream.read(0.01)
        await stream.close()

    await assert_no_leak(fail)
    assert hangs_up.accepted > OUTAGES
    await ledger.close()


async def test_a_bucket_that_hangs_up(hangs_up: HangsUp, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "some")
    endpoint = f"http://127.0.0.1:{hangs_up.port}"
    store = S3StateStore(StoreConfig(type=StoreType.S3, bucket="bucket", endpoint=endpoint))

    async def fail() -> None:
        with pytest.raises(Exception, match="Generic S3 error"):
            await store.get("ab1")

    await assert_no_leak(fail)
    assert hangs_up.accepted > OUTAGES


@pytest.mark.shared
async def test_a_client_of_redis_that_is_closed_has_no_connection_left(redis_server: RedisServer) -> None:
    access = RedisAccess(redis_server.address)
    with redis_server.client() as observer:
        before = len(observer.client_list())
        ledger = await RedisLedger.open(access, "closed")
        stream = RedisStream(connect(access), "diffcache:closed")
        await stream.read(0.01)
        assert len(observer.client_list()) > before
        await stream.close()
        await ledger.close()
        for _ in range(100):
            if len(observer.client_list()) == before:
                break
            await asyncio.sleep(0.05)
        assert len(observer.client_list()) == before
