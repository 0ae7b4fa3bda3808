"""Whoever reaches the port of the metrics may connect and ask for anything: the server stays small and goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from diffcache_core.net.exposition import exposition
from diffcache_core.net.http_server import MAX_HEAD_BYTES, Handler, HttpServer, Request, Response

GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


async def hello(_: Request) -> Response:
    return Response(b"hello")


@asynccontextmanager
async def serving(handler: Handler = hello, **limits: Any) -> AsyncIterator[HttpServer]:
    server = HttpServer(handler, **limits)
    await server.start("127.0.0.1", 0)
    try:
        yield server
    finally:
        server.close()


async def ask(server: HttpServer, request: bytes = GET) -> bytes:
    """All that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()


def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    Counter("steps", "Steps.", registry=made).inc(3)
    Gauge("up", "Up.", ("what",), registry=made).labels("index").set(1)
    Histogram("seconds", "Seconds.", registry=made).observe(0.5)
    return made


async def test_metrics_are_served_in_the_format_that_is_asked_for() -> None:
    async with serving(exposition(registry())) as server:
        head, _, body = (await ask(server)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Content-Type: text/plain; version=0.0.4" in head
        assert f"Content-Length: {len(body)}".encode() in head
        families = {family.name: family for family in text_string_to_metric_families(body.decode())}
        assert [sample.value for sample in families["steps"].samples if sample.name == "steps_total"] == [3]
        openmetrics = await ask(server, GET[:-2] + b"Accept: application/openmetrics-text; version=1.0.0\r\n\r\n")
        assert openmetrics.endswith(b"# EOF\n")
        refused = await ask(server, GET[:-2] + b"Accept: text/plain; version=x.y\r\n\r\n")
        assert refused.startswith(b"HTTP/1.1 400 ")


async def test_who_asks_by_name_gets_nothing_else() -> None:
    async with serving(exposition(registry())) as server:
        request = GET.replace(b"/metrics", b"/metrics?name[]=steps_total&name%5B%5D=seconds_sum")
        body = (await ask(server, request)).partition(b"\r\n\r\n")[2].decode()
    lines = [line for line in body.splitlines() if not line.startswith("#")]
    assert sorted(lines) == ["seconds_sum 0.5", "steps_total 3.0"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"HEAD / HTTP/1.1\r\n\r\n", b"200"),
        (b"POST / HTTP/1.1\r\n\r\n", b"405"),
        (b"\r\n\r\n", b"400"),
        (b"GET / HTTP/9\r\n\r\n", b"400"),
        (b"GET http://[ HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /?" + b"a=1&" * 200 + b" HTTP/1.1\r\n\r\n", b"400"),
        (b"\x16\x03\x01\xff\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * MAX_HEAD_BYTES + b"\r\n", b"431"),
        (b"a" * (MAX_HEAD_BYTES + 1), b"431"),
    ],
)
async def test_what_is_asked_otherwise(request_: bytes, status: bytes) -> None:
    async with serving() as server:
        answer = await ask(server, request_)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert (b"hello" in answer) is False
        assert (await ask(server)).endswith(b"hello")


async def test_the_text_of_a_bug_stays_inside(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_: Request) -> Response:
        raise RuntimeError("secret")

    async with serving(broken) as server:
        answer = await ask(server)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answer
    assert "secret" in caplog.text


async def test_silent_connections_take_no_thread_and_no_place() -> None:
    before = threading.active_count()
    async with serving() as server:
        silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(400)]
        assert (await ask(server)).endswith(b"hello")
        assert server.connections <= server.max_connections
        assert threading.active_count() == before
        assert await silent[0][0].read() == b""  # the oldest made room
        for _, writer in silent:
            writer.close()


async def whole(writer: asyncio.StreamWriter) -> None:
    """Sends nothing."""


async def drip(writer: asyncio.StreamWriter) -> None:
    """A header without end, a byte at a time."""
    while not writer.is_closing():
        writer.write(b"a")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("send", [whole, drip])
async def test_who_dawdles_is_cut_off(send: Callable[[asyncio.StreamWriter], Any]) -> None:
    async with serving(seconds=0.2) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        sending = asyncio.create_task(send(writer))
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        assert server.connections == 0
        sending.cancel()
        writer.close()


async def test_who_reads_slowly_is_cut_off() -> None:
    length = 2**24  # more than the buffers between the two hold

    async def long(_: Request) -> Response:
        return Response(b" " * length)

    async with serving(long, seconds=0.3) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(GET)
        got = 0
        with suppress(ConnectionResetError):
            while chunk := await reader.read(1024):
                got += len(chunk)
                await asyncio.sleep(0.001)
        assert got < length
        assert server.connections == 0
        writer.close()
