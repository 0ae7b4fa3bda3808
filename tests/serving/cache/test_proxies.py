"""A proxy of the environment stands before nothing of our own: Milvus, Redis, buckets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from diffcache_core.serving_config import StoreConfig
from diffcache_serving.cache.index import IndexUnavailable
from diffcache_serving.cache.ledger_redis import RedisLedger
from diffcache_serving.cache.milvus import MilvusIndex
from diffcache_serving.cache.milvus_lite import MilvusLite
from diffcache_serving.cache.redis_client import RedisAccess
from diffcache_serving.cache.s3 import S3StateStore
from diffcache_serving.local_hosts import is_local
from tests.serving.cache.proxy_server import RefusingProxy
from tests.serving.cache.redis_server import RedisServer


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[RefusingProxy]:
    with RefusingProxy() as refusing:
        for name in ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, refusing.url)
            if name != "grpc_proxy":
                monkeypatch.setenv(name.upper(), refusing.url)
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield refusing


async def test_milvus_lite(proxy: RefusingProxy, tmp_path_factory: pytest.TempPathFactory) -> None:
    lite = MilvusLite(tmp_path_factory.mktemp("lite") / "milvus")
    index = MilvusIndex(lite.uri, "proxies", 2)
    assert await index.entry_ids() == set()
    await index.close()
    lite.stop()
    assert proxy.asked == []


@pytest.mark.parametrize("host", ["shared-milvus", "milvus.demo.svc"])
async def test_the_short_name_of_a_milvus_is_not_asked_of_the_proxy(host: str, proxy: RefusingProxy) -> None:
    index = MilvusIndex(lambda: f"http://{host}:19530", "proxies", 2, call_seconds=0.5)
    with pytest.raises(IndexUnavailable):  # here is no such name
        await index.ping()
    await index.close()
    assert proxy.asked == []


async def test_a_milvus_of_the_world_is(proxy: RefusingProxy) -> None:
    index = MilvusIndex(lambda: "http://milvus.example.com:19530", "proxies", 2, call_seconds=0.5)
    with pytest.raises(IndexUnavailable):
        await index.ping()
    await index.close()
    assert "CONNECT milvus.example.com:19530" in proxy.asked


@pytest.mark.shared
async def test_a_bucket(proxy: RefusingProxy, bucket: StoreConfig) -> None:
    store = S3StateStore(bucket)
    await store.put("ab1", b"one")
    assert await store.get("ab1") == b"one"
    assert proxy.asked == []


@pytest.mark.shared
async def test_redis(proxy: RefusingProxy, redis_server: RedisServer) -> None:
    ledger = await RedisLedger.open(RedisAccess(redis_server.address), "proxies")
    await ledger.check()
    await ledger.close()
    assert proxy.asked == []


def test_a_name_with_a_namespace_is_looked_up(proxy: RefusingProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_local("minio")
    assert not is_local("nobody.invalid")
