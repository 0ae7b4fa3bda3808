"""What the probes and Prometheus are told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import aiohttp
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from diffcache_operator.web import Standing, answering

Ports = Callable[[int], list[int]]


async def ask(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


async def test_it_is_alive_at_once_and_ready_when_it_works(free_ports: Ports) -> None:
    standing, (health, metrics) = Standing(), free_ports(2)
    async with answering(standing, CollectorRegistry(), health, metrics):
        assert (await ask(health, "/healthz"))[0] == 200
        standing.waits_for = "the operator ops/other works in all namespaces"
        assert await ask(health, "/readyz") == (503, f"waits: {standing.waits_for}\n")
        standing.waits_for = ""
        assert (await ask(health, "/readyz"))[0] == 200


async def test_metrics_are_collected_on_the_loop_to_which_they_belong(free_ports: Ports) -> None:
    """A thread of the scrape's own would look at the queue while the loop changes it."""
    registry, threads = CollectorRegistry(), set()

    class Asked(Collector):
        def collect(self) -> Iterator[Metric]:
            threads.add(threading.get_ident())
            yield GaugeMetricFamily("asked", "Of it.", value=1)

    def of_the_queue() -> float:
        threads.add(threading.get_ident())
        return 7

    registry.register(Asked())
    Gauge("waiting", "Of the queue.", registry=registry).set_function(of_the_queue)
    health, metrics = free_ports(2)
    async with answering(Standing(), registry, health, metrics):
        status, text = await ask(metrics, "/metrics")
    assert status == 200
    assert {"asked 1.0", "waiting 7.0"} <= set(text.splitlines())
    assert threads == {threading.get_ident()}
