"""Which hosts are reached without a proxy."""

from __future__ import annotations

import pytest

from diffcache_core.net.proxies import grpc_proxy, host_of, is_near


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "127.0.0.1", "127.9.9.9", "::1", "fe80::1%eth0", "10.0.0.7", "192.168.1.2", "node.local"),
        *("emoji", "EMOJI", "emoji.", "emoji-pods", "emoji.demo.svc", "emoji.demo.svc.cluster.local"),
        "emoji.demo.svc.my.domain",
    ],
)
def test_what_is_near(host: str) -> None:
    assert is_near(host)
    assert grpc_proxy(host, {"https_proxy": "http://proxy:3128"}) == ""


@pytest.mark.parametrize("host", ["example.com", "8.8.8.8", "2001:4860:4860::8888", "svc.example.com", "emoji.demo"])
def test_what_is_not(host: str) -> None:
    assert not is_near(host)


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("localhost:50051", "localhost"),
        ("dns:///emoji-pods:50051", "emoji-pods"),
        ("dns://8.8.8.8/emoji-pods:50051", "emoji-pods"),
        ("dns:emoji:1", "emoji"),
        ("ipv6:[::1]:50051,[::2]:50051", "::1"),
        ("ipv4:10.0.0.1:1", "10.0.0.1"),
        ("[::1]:50051", "::1"),
        ("http://user:pass@milvus:19530/db", "milvus"),
        ("https://[fd00::1]:9000/", "fd00::1"),
        ("emoji", "emoji"),
    ],
)
def test_the_host_of_an_address(address: str, host: str) -> None:
    assert host_of(address) == host


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, ""),
        ({"https_proxy": "http://me:secret@proxy:3128"}, "http://proxy:3128"),
        ({"https_proxy": "http://two", "grpc_proxy": "http://one", "http_proxy": "http://three"}, "http://one"),
        ({"http_proxy": "http://three"}, "http://three"),
        ({"HTTPS_PROXY": "http://proxy"}, ""),  # gRPC knows no capital letters
        ({"https_proxy": "http://proxy", "no_proxy": "else.org, .example.com"}, ""),
        ({"https_proxy": "http://proxy", "no_proxy": "example.com", "no_grpc_proxy": "else.org"}, "http://proxy"),
    ],
)
def test_the_proxy_that_grpc_asks(environment: dict[str, str], proxy: str) -> None:
    assert grpc_proxy("cache.example.com", environment) == proxy
