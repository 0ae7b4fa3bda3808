"""Every query of the dashboards has an answer from a real Prometheus that scrapes both processes' registries."""

from __future__ import annotations

import contextlib
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from diffcache_core.generation import Result
from diffcache_core.names import MOMENTS, SHADOW_MULTIPLES, SHADOW_OUTCOMES
from diffcache_core.resume import Level, Levels
from diffcache_core.status import DiffusionCacheStatus, TuningStatus
from diffcache_operator.metrics import Metrics as OperatorMetrics
from diffcache_serving.metrics import DROP_REASONS, EVICTION_REASONS, INDEX_OPERATIONS, PHASES
from diffcache_serving.metrics import Metrics as ServingMetrics
from tests.monitoring.prometheus import Prometheus
from tests.monitoring.rules import DASHBOARDS, RULES, queries, recorded, variables
from tests.monitoring.test_registries import condition
from tests.operator.resources import cache
from tests.system.serverprocess import free_ports, wait_for

CHOSEN = {"$namespace": "demo", "$cache": "emoji"}


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
        self.operator.caches.tell(cache(), status)

    def flows(self) -> None:
        serving, operator = self.serving, self.operator
        for result in Result:
            serving.answered(result, dict.fromkeys(PHASES, 0.01), 0.1, 8, 2 if result is Result.APPROXIMATE else 0)
        serving.failed()
        serving.step_seconds.observe(0.02)
        serving.device_seconds.inc(0.02)
        serving.pending_steps.set(12)
        for reason in EVICTION_REASONS:
            serving.evictions.labels(reason).inc()
        for reason in DROP_REASONS:
            serving.dropped.labels(reason).inc()
        for operation in INDEX_OPERATIONS:
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


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return Traffic()


@pytest.fixture(scope="module")
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


def without_data(prometheus: Prometheus, asked: list[str]) -> list[str]:
    return [query for query in asked if not prometheus.values(query)]


def chosen(query: str) -> str:
    for variable, value in CHOSEN.items():
        query = query.replace(variable, value)
    assert "$" not in query
    return query


def wait_for_data(prometheus: Prometheus, traffic: Traffic, asked: list[str]) -> None:
    left = asked

    def look() -> bool:
        nonlocal left
        traffic.flows()
        left = without_data(prometheus, left)
        return not left

    try:
        wait_for("an answer to every query", look, 60)
    except AssertionError:
        pytest.fail("no data for:\n" + "\n".join(left))


@pytest.mark.clients
@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_has_data(prometheus: Prometheus, traffic: Traffic, dashboard: Path) -> None:
    wait_for_data(prometheus, traffic, [chosen(query) for query in queries(dashboard)])


@pytest.mark.clients
@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_the_choices_of_namespace_and_cache_are_found(
    prometheus: Prometheus, traffic: Traffic, dashboard: Path
) -> None:
    for query in variables(dashboard):
        series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", chosen(query)).groups()  # type: ignore[union-attr]
        wait_for_data(prometheus, traffic, [series])
        (found,) = {sample["metric"][label] for sample in prometheus.ask("query", query=series)["result"]}
        assert found == CHOSEN[f"${label}"]


@pytest.mark.clients
def test_every_rule_is_evaluated_without_an_error_and_records(prometheus: Prometheus, traffic: Traffic) -> None:
    wait_for_data(prometheus, traffic, sorted(recorded()))
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"]: rule["health"] for rule in rules if rule["health"] != "ok"} == {}


def test_panels_lie_side_by_side_and_are_numbered() -> None:
    for dashboard in DASHBOARDS:
        panels = json.loads(dashboard.read_text())["panels"]
        assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
        taken = {
            (x, y)
            for p in (panel["gridPos"] for panel in panels)
            for x in range(p["x"], p["x"] + p["w"])
            for y in range(p["y"], p["y"] + p["h"])
        }
        assert len(taken) == sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in panels)
        assert max(x for x, _ in taken) == 23
