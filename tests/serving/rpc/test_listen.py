"""Clients that ping often keep their connection, on both servers and without a call, too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_core.pb import diffcache_pb2_grpc as pb_grpc
from diffcache_serving.engine.loading import LoadedModel
from diffcache_serving.lifecycle import drain, start
from diffcache_serving.rpc.listen import PING_MILLISECONDS
from diffcache_serving.server import Server, wired
from tests.system.serverprocess import serving_config

PINGS = 5  # gRPC ends the connection after the third that comes too early
PING, HEAD = 6, 9  # of an HTTP/2 frame: its type, and the bytes before what it holds
PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


class PingCounter:
    """Stands between client and server, and counts what the client sends of its own accord."""

    def __init__(self, port: int) -> None:
        self._target, self._count = port, 0
        self.enough = asyncio.Event()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far, out = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(self._count_frames(reader, out), self._copy(far, writer))

    async def _count_frames(self, reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            out.write(await reader.readexactly(PREFACE))
            while True:
                head = await reader.readexactly(HEAD)
                out.write(head + await reader.readexactly(int.from_bytes(head[:3])))
                self._count += head[3] == PING and not head[4] & 1  # the flag is that of an answer
                if self._count >= PINGS:
                    self.enough.set()
        out.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(2**16):
                writer.write(data)
        writer.close()


@pytest.fixture
async def server(model: LoadedModel, tmp_path: Path) -> AsyncIterator[Server]:
    async with wired(serving_config(tmp_path), model, None) as server:
        await start(server)
        yield server
        await drain(server, 5.0)


async def test_a_connection_that_says_nothing_is_cut(server: Server) -> None:
    """Else it would hold the end of the server for the whole grace."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.reloader.config.listen.port)
    await reader.read()  # until the server ends it
    writer.close()


def pinging(port: int) -> grpc.aio.Channel:
    """A client that pings nearly as often as it may, between calls, too."""
    options = [
        ("grpc.keepalive_time_ms", PING_MILLISECONDS * 3 // 2),  # at the limit, jitter would make some come too early
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)


async def test_pings_in_the_middle_of_a_picture_and_of_a_call_to_the_admin(server: Server) -> None:
    listen = server.reloader.config.listen
    async with (
        PingCounter(listen.port) as images,
        PingCounter(listen.admin_port) as admin,
        pinging(images.port) as channel,
        pinging(admin.port) as admin_channel,
    ):
        picture = pb_grpc.ImageGenerationStub(channel).Generate(pb.GenerateRequest(prompt="apple", steps=1000))
        watch = health_pb2_grpc.HealthStub(admin_channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await asyncio.wait_for(asyncio.gather(images.enough.wait(), admin.enough.wait()), 60)
        assert not picture.done()
        assert not watch.done()
        picture.cancel()
        await pb_grpc.CacheAdminStub(admin_channel).GetStats(pb.GetStatsRequest())
