"""Who listens on all addresses answers IPv4 and IPv6, and IPv4 alone where the kernel has nothing else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from diffcache_core.net.http_server import HttpServer, Request, Response
from diffcache_core.net.listening import ANY, join_host_port

HERE = Path(__file__).parent


async def hello(_: Request) -> Response:
    return Response(b"hello")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_all_addresses_are_those_of_both_families(host: str) -> None:
    server = HttpServer(hello)
    await server.start(ANY, 0)
    reader, writer = await asyncio.open_connection(host, server.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert (await reader.read()).endswith(b"hello")
    writer.close()
    server.close()


def test_a_kernel_without_ipv6_serves_ipv4() -> None:
    subprocess.run([sys.executable, str(HERE / "without_ipv6.py")], check=True)


def test_an_address_with_colons_stands_in_brackets() -> None:
    assert join_host_port("::1", 1) == "[::1]:1"
    assert join_host_port("127.0.0.1", 1) == "127.0.0.1:1"
