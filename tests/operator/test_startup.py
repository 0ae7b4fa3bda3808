"""The commands of startup probes, run: they wait, return when the process answers, and never fail before."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from http import HTTPStatus

from diffcache_core.net.http_server import HttpServer, Request, Response
from diffcache_operator.desired.children import desired_children
from diffcache_operator.metadata import JSON
from tests.operator.resources import IMAGES, cache

Ports = Callable[[int], list[int]]
RESOURCE = cache(
    index={"type": "Standalone", "standalone": {}}, cache={"ledger": {"type": "Provisioned", "provisioned": {}}}
)


def probe(name: str) -> JSON:
    found = [
        c for c in desired_children(RESOURCE, IMAGES) if c["kind"] == "StatefulSet" and c["metadata"]["name"] == name
    ]
    return dict(found[0]["spec"]["template"]["spec"]["containers"][0]["startupProbe"])


def command(name: str, port: int, instead_of: int) -> list[str]:
    """As the kubelet runs it, on a port that is free here."""
    program, *rest = [word.replace(str(instead_of), str(port)) for word in probe(name)["exec"]["command"]]
    return [sys.executable if program == "python" else program, *rest]


def test_one_look_is_long_and_an_hour_is_enough_for_a_large_model() -> None:
    for name in ("emoji", "emoji-milvus", "emoji-redis"):
        assert probe(name)["timeoutSeconds"] * probe(name)["failureThreshold"] == 3600


async def test_the_serving_pods_command_returns_when_somebody_listens(free_ports: Ports) -> None:
    (port,) = free_ports(1)
    waiting = await asyncio.create_subprocess_exec(*command("emoji", port, 50051))
    server = None
    try:
        done, _ = await asyncio.wait([asyncio.create_task(waiting.wait())], timeout=3)
        assert not done
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "localhost", port)
        assert await asyncio.wait_for(waiting.wait(), 60) == 0
    finally:
        if server is not None:
            server.close()
        if waiting.returncode is None:
            waiting.kill()


async def test_the_command_of_milvus_waits_until_it_calls_itself_healthy(free_ports: Ports) -> None:
    (port,) = free_ports(1)
    asked: list[str] = []
    twice = asyncio.Event()

    async def answer(request: Request) -> Response:
        asked.append(request.path)
        if len(asked) < 2:
            return Response(b"not yet", status=HTTPStatus.INTERNAL_SERVER_ERROR)
        twice.set()
        return Response(b"OK")

    server = HttpServer(answer)
    waiting = await asyncio.create_subprocess_exec(*command("emoji-milvus", port, 9091))
    try:
        await server.start("localhost", port)
        await asyncio.wait_for(twice.wait(), 60)
        assert await asyncio.wait_for(waiting.wait(), 60) == 0
        assert asked == ["/healthz", "/healthz"]
    finally:
        server.close()
        if waiting.returncode is None:
            waiting.kill()


def test_the_command_of_redis_asks_redis_itself() -> None:
    assert probe("emoji-redis")["exec"]["command"][:2] == ["sh", "-c"]
    assert "redis-cli ping" in probe("emoji-redis")["exec"]["command"][2]
