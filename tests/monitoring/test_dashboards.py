"""Every query of the dashboards has an answer from a real Prometheus that scrapes both processes' registries."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.monitoring.conftest import Traffic
from tests.monitoring.prometheus import Prometheus
from tests.monitoring.rules import DASHBOARDS, queries, recorded, variables
from tests.system.serverprocess import wait_for

CHOSEN = {"$namespace": "demo", "$cache": "emoji"}


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
