"""Answers probes of the kubelet and scrapes of Prometheus. It runs in the event loop whose health it reports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client import CollectorRegistry

from diffcache_core.net.exposition import exposition
from diffcache_core.net.http_server import Handler, HttpServer, Request, Response
from diffcache_core.net.listening import ANY

HEALTH_PORT, METRICS_PORT = 8080, 8081


class CannotListen(Exception):
    """The operator cannot listen on a port. The message says on which one, and why."""


@dataclass
class Standing:
    """The operator's readiness. `waits_for`: a text that says what the operator waits for; empty while it works."""

    waits_for: str = "the API server has not answered yet"


@asynccontextmanager
async def answering(
    standing: Standing,
    registry: CollectorRegistry,
    health_port: int = HEALTH_PORT,
    metrics_port: int = METRICS_PORT,
) -> AsyncIterator[None]:
    """Serves /healthz and /readyz on one port and metrics on the other, on all interfaces. Raises CannotListen."""
    servers = ((HttpServer(_health(standing)), health_port), (HttpServer(exposition(registry)), metrics_port))
    try:
        for server, port in servers:
            try:
                await server.start(ANY, port)
            except OSError as error:
                raise CannotListen(f"cannot listen on port {port}: {error}") from None
        yield
    finally:
        for server, _ in servers:
            server.close()


def _health(standing: Standing) -> Handler:
    async def answer(request: Request) -> Response:
        if request.path == "/healthz" or (request.path == "/readyz" and not standing.waits_for):
            return Response(b"ok\n")  # a blocked event loop would not answer
        if request.path == "/readyz":
            return Response(f"waits: {standing.waits_for}\n".encode(), status=HTTPStatus.SERVICE_UNAVAILABLE)
        return Response(b"ask for /healthz or /readyz\n", status=HTTPStatus.NOT_FOUND)

    return answer
