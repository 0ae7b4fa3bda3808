"""A real Prometheus that scrapes the registries of both processes, and what moves them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from diffcache_core.cache.resume import Level, Levels
from diffcache_core.generation import Result
from diffcache_core.names import MOMENTS, SHADOW_MULTIPLES, SHADOW_OUTCOMES
from diffcache_core.resource.status import DiffusionCacheStatus, TuningStatus
from diffcache_operator.metrics import Metrics as OperatorMetrics
from diffcache_serving.cache.events import Drop, Eviction, Operation
from diffcache_serving.metrics import PHASES
from diffcache_serving.metrics import Metrics as ServingMetrics
from tests.monitoring.prometheus import Prometheus
from tests.monitoring.rules import RULES
from tests.monitoring.test_registries import condition
from tests.operator.resources import cache
from tests.system.serverprocess import free_ports


class Traffic:
    """Both processes' registries, and what would move them."""

    def __init__(self) -> None:
        self.serving, self.operator = ServingMetrics("emoji"), OperatorMetrics()
        self.serving.levels_in_force(Levels((Level(25, 0.7),)))
        self.serving.build_info.labels("1", "emoji", "cpu").set(1)
        self.serving.queue_max_steps.set(4000)
        status = DiffusionCacheStatus(
            conditions=[condition("Ready", "True", "Serving"), condition("IndexReady", "False", "Down")],
            tuning=TuningStatus(revision=2),
        )
        self.operator.caches.show(cache(), status)

    def flows(self) -> None:
        serving, operator = self.serving, self.operator
        for result in Result:
            serving.answered(result, dict.fromkeys(PHASES, 0.01), 0.1, 8, 2 if result is Result.APPROXIMATE else 0)
        serving.failed()
        serving.step_seconds.observe(0.02)
        serving.device_seconds.inc(0.02)
        serving.pending_steps.set(12)
        for reason in get_args(Eviction):
            serving.evictions.labels(reason).inc()
        for reason in get_args(Drop):
            serving.states_dropped.labels(reason).inc()
        for operation in get_args(Operation):
            serving.index_errors.labels(operation).inc()
        for outcome in SHADOW_OUTCOMES:
            serving.shadow_runs.labels(outcome).inc()
        serving.shadow_steps.inc(8)
        for multiple in SHADOW_MULTIPLES:
            serving.shadow_saved_ratio.labels(f"{multiple:g}").set(0.2)
        c, u = random.uniform(0.25, 0.35), random.uniform(0.25, 0.35)
        serving.quality_pairs.labels("25", "0.70").inc()
        for moment, value in zip(MOMENTS, (c, u, c * c, u * u, c * u), strict=True):
            serving.quality_sum.labels("25", "0.70", moment).inc(value)
        for answer in ("ok", "error"):
            operator.reconciles.labels(answer).inc()
        operator.seconds.observe(0.05)
        operator.writes.labels("ConfigMap").inc()
        operator.called("get", 200, 0.01)


@contextlib.contextmanager
def exported(registry: CollectorRegistry) -> Iterator[str]:
    """Yields where a registry can be scraped."""
    (port,) = free_ports(1)
    server, thread = start_http_server(port, "127.0.0.1", registry)
    yield f"127.0.0.1:{port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def traffic() -> Traffic:
    return Traffic()


@pytest.fixture(scope="session")
def prometheus(traffic: Traffic, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with exported(traffic.serving.registry) as serving, exported(traffic.operator.registry) as operator:
        pod = {"namespace": "demo", "cache": "emoji", "pod": "emoji-0"}
        of_the_operator = {"namespace": "diffcache-system", "pod": "diffcache-0"}
        jobs: list[dict[str, Any]] = [
            {"job_name": "serving", "static_configs": [{"targets": [serving], "labels": pod}]},
            {
                "job_name": "operator",
                "honor_labels": True,
                "static_configs": [{"targets": [operator], "labels": of_the_operator}],
            },
        ]
        with Prometheus(tmp_path_factory.mktemp("prometheus"), RULES, jobs) as running:
            yield running
