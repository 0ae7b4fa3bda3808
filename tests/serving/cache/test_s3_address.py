"""Where a bucket is looked for: seen by a proxy, which is asked for the host and lets nothing out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from diffcache_core.choices import StoreType
from diffcache_core.resource.manifest import parse_manifest
from diffcache_core.resource_to_config import Host, build_serving_config
from diffcache_core.serving_config import ListenConfig, StoreConfig
from diffcache_serving.cache.opening import open_store
from diffcache_serving.cache.s3 import S3StateStore, address_of
from diffcache_serving.metrics import Metrics
from tests.serving.cache.proxy_server import RefusingProxy

SHARED = Path("examples/shared.yaml")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[RefusingProxy]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "some")
    with RefusingProxy() as refusing:
        monkeypatch.setenv("https_proxy", refusing.url)
        yield refusing


@pytest.mark.parametrize(
    ("bucket", "region", "host"),
    [
        ("my-states", "eu-west-1", "my-states.s3.eu-west-1.amazonaws.com"),
        ("my-states", "", "my-states.s3.us-east-1.amazonaws.com"),
        ("my.states", "eu-west-1", "s3.eu-west-1.amazonaws.com"),  # no certificate covers my.states.s3...
        ("my-states", "cn-north-1", "my-states.s3.cn-north-1.amazonaws.com.cn"),
    ],
)
async def test_amazons_own_needs_no_endpoint(bucket: str, region: str, host: str, proxy: RefusingProxy) -> None:
    store = S3StateStore(StoreConfig(type=StoreType.S3, bucket=bucket, region=region))
    with pytest.raises(Exception, match=f"https://{host}/"):
        await store.put("ab1", b"one")
    assert set(proxy.asked) == {f"CONNECT {host}:443"}


async def test_the_example_without_its_endpoint_as_it_recommends(proxy: RefusingProxy, tmp_path: Path) -> None:
    lines = [line for line in SHARED.read_text().splitlines() if "endpoint:" not in line]
    resource = parse_manifest("\n".join(lines), "shared.yaml")
    config = build_serving_config(resource, Host(tmp_path, ListenConfig()))
    store = open_store(config, Metrics("emoji"))
    with pytest.raises(Exception, match="diffcache"):
        await store.put("ab1", b"one")
    assert set(proxy.asked) == {"CONNECT diffcache.s3.us-east-1.amazonaws.com:443"}


@pytest.mark.parametrize("endpoint", ["http://minio:9000", "http://minio:9000/", "https://s3.eu-west-1.amazonaws.com"])
def test_an_endpoint_is_taken_as_it_is(endpoint: str) -> None:
    config = StoreConfig(type=StoreType.S3, bucket="my-states", region="eu-west-1", endpoint=endpoint)
    assert address_of(config) == (endpoint.rstrip("/"), False)
