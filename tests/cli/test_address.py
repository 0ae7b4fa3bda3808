"""What people write for an address: it is taken, or refused with what to write."""

from __future__ import annotations

from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from diffcache import AsyncClient, Client, GenerationError
from diffcache.address import checked_address
from diffcache.admin import AdminClient

Diffcache = Callable[..., CompletedProcess[str]]


@pytest.mark.parametrize(
    "address",
    [
        "localhost:50051",
        "127.0.0.1:1",
        "[::1]:65535",
        "[fe80::1%eth0]:50051",
        "emoji.studio.svc:50051",
        "dns:///emoji-pods:50051",
        "dns://8.8.8.8/emoji-pods:50051",
        "dns:emoji:50051",
        "ipv4:10.0.0.1:50051,10.0.0.2:50051",
        "ipv6:[::1]:50051",
        "unix:/run/diffcache.sock",
        "unix:///run/diffcache.sock",
    ],
)
def test_an_address_is_taken(address: str) -> None:
    assert checked_address(address, "server", 50051) == address
    assert checked_address(f" {address}\n", "server", 50051) == address


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:50051", "gRPC takes no http://: write 127.0.0.1:50051"),
        ("HTTP://h:1/", "gRPC takes no http://: write h:1"),
        ("https://h:1/x?y", "gRPC takes no https://: write h:1 and ask for TLS"),
        ("grpc://h", "gRPC takes no grpc://: write h:50051"),
        ("grpcs://h:1", "gRPC takes no grpcs://: write h:1 and ask for TLS"),
        ("tcp://h:1", "gRPC takes no tcp://: write h:1"),
        ("http://[::1]:1", "write [::1]:1"),
        ("http://::1", "write [::1]:50051"),
        ("http://", "such as localhost:50051"),
        ("http://me:hunter2@h:1", "write h:1"),
        ("me:hunter2@h:1", "a path, a query or a user has no place in it: write h:1"),
        ("h:1/", "write h:1"),
        ("h/", "write h:50051"),
        ("h", "has no port: write h:50051"),
        ("h:", "has no port: write h:50051"),
        ("127.0.0.1", "has no port: write 127.0.0.1:50051"),
        ("[::1]", "has no port: write [::1]:50051"),
        ("::1", "has no brackets: write [::1]:50051"),
        ("::1:50051", "has no brackets: write [::1]:50051"),
        ("fe80::1%eth0", "write [fe80::1%eth0]:50051"),
        ("h:http", "not a host and a port from 1 to 65535"),
        ("h:0", "not a host and a port from 1 to 65535"),
        ("h:65536", "not a host and a port from 1 to 65535"),
        ("h:1:2", "not a host and a port"),
        ("a b:1", "not a host and a port"),
        ("[h]:1", "not a host and a port"),
        ("[::1:1", "not a host and a port"),
        ("h\x1b[2J:1", "h\\x1b[2J:1 is not a host"),
        ("", "is empty"),
        (" ", "is empty"),
        ("dns:///emoji", "has no port: write dns:///emoji:50051"),
        ("dns:///http://h:1", "write dns:///h:1"),
        ("ipv4:1.2.3.4:5,1.2.3.5", "write ipv4:1.2.3.5:50051"),
    ],
)
def test_what_is_none_is_refused_with_what_to_write(address: str, words: str) -> None:
    with pytest.raises(GenerationError) as caught:
        checked_address(address, "server", 50051)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert words in caught.value.message
    assert caught.value.message.isprintable()
    assert "hunter2" not in caught.value.message


async def test_every_door_refuses_it(diffcache: Diffcache, kubectl_diffcache: Diffcache) -> None:
    for make in (Client, AsyncClient, AdminClient):
        with pytest.raises(GenerationError, match=r"gRPC takes no http://: write 127\.0\.0\.1:50051"):
            make("http://127.0.0.1:50051")
    for words in (
        ["generate", "cat", "--server", "http://127.0.0.1:50051"],
        ["stats", "--admin", "http://127.0.0.1:50051"],
        ["tuning", "--admin", "http://127.0.0.1:50051/"],
        ["cache", "ls", "--admin", "https://127.0.0.1:50051"],
        ["cache", "purge", "--all", "--admin", "grpc://127.0.0.1:50051"],
    ):
        done = diffcache(*words)
        assert done.returncode == 2
        assert "write 127.0.0.1:50051" in done.stderr
