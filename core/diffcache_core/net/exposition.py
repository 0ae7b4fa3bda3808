"""Serves a registry of metrics by HTTP in Prometheus' formats. Operator and serving process share it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from diffcache_core.net.http_server import Handler, Request, Response


@dataclass(frozen=True)
class _Collected(Collector):
    metrics: list[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def exposition(registry: CollectorRegistry) -> Handler:
    """Returns a handler that answers any path with the registry's metrics, or with those that the query's `name[]`
    names.

    It collects in the event loop, because collectors read values that the loop changes. A thread writes the text, which
    takes longer, for one scrape at a time.
    """
    one_at_a_time = asyncio.Lock()

    async def answer(request: Request) -> Response:
        names = request.query.get("name[]")
        chosen = registry if names is None else registry.restricted_registry(names)
        try:
            encode, content_type = choose_encoder(request.accept)
        except (ValueError, TypeError):  # the version in the header is malformed
            return Response(b"cannot read the header Accept\n", status=HTTPStatus.BAD_REQUEST)
        async with one_at_a_time:
            body = await asyncio.to_thread(encode, _Collected(list(chosen.collect())))
        return Response(body, content_type)

    return answer
