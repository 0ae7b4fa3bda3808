"""Rules and dashboards in the chart."""

from __future__ import annotations

import json

import yaml

from diffcache_core.names import CACHE_LABEL
from tests.charts.helm import CHART, JSON, Chart, of_kind
from tests.charts.test_rendering import EVERYTHING, MONITORED

RULES = yaml.safe_load((CHART / "files/rules.yaml").read_text())
ON = ("--set", "monitoring.rules.enabled=true,monitoring.dashboards.enabled=true")


def labelled(objects: list[JSON], label: str) -> list[JSON]:
    return [one for one in of_kind(objects, "ConfigMap") if label in one["metadata"].get("labels", {})]


def test_off_by_default(chart: Chart) -> None:
    objects = chart.render()
    assert not labelled(objects, "prometheus_rule")
    assert not labelled(objects, "grafana_dashboard")
    assert not of_kind(objects, "PrometheusRule")


def test_the_rules_arrive_as_they_are(chart: Chart) -> None:
    (rules,) = labelled(chart.render(*ON), "prometheus_rule")
    assert yaml.safe_load(rules["data"]["diffcache.rules.yaml"]) == RULES


def test_the_dashboards_arrive_as_they_are(chart: Chart) -> None:
    files = sorted((CHART / "files/dashboards").glob("*.json"))
    arrived = {
        name: text for one in labelled(chart.render(*ON), "grafana_dashboard") for name, text in one["data"].items()
    }
    assert {name: json.loads(text) for name, text in arrived.items()} == {
        path.name: json.loads(path.read_text()) for path in files
    }
    assert len(arrived) == 2


def test_for_the_prometheus_operator(chart: Chart) -> None:
    objects = chart.render(*EVERYTHING)
    (rule,) = of_kind(objects, "PrometheusRule")
    (rules,) = [one for one in labelled(objects, "for") if one["metadata"]["labels"]["for"] == "prometheus"]
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    assert rule["spec"] == yaml.safe_load(rules["data"]["diffcache.rules.yaml"])


def test_alerts_link_to_the_runbook_that_the_values_name(chart: Chart) -> None:
    (rule,) = of_kind(chart.render(*EVERYTHING), "PrometheusRule")
    links = [
        each["annotations"]["runbook_url"]
        for group in rule["spec"]["groups"]
        for each in group["rules"]
        if "alert" in each
    ]
    assert links
    assert all(link.startswith("https://wiki.example/diffcache-runbook#diffcache") for link in links)


def test_labels_and_annotations(chart: Chart) -> None:
    found = [
        (one["metadata"]["labels"]["for"], one["metadata"].get("annotations"))
        for one in labelled(chart.render(*EVERYTHING), "for")
    ]
    folder = {"grafana_folder": "pictures"}
    assert found == [("grafana", folder), ("prometheus", None), ("grafana", folder)]  # operator, rules, users


def test_pod_monitors_give_the_labels_that_the_rules_know(chart: Chart) -> None:
    operator, serving = of_kind(chart.render(*MONITORED), "PodMonitor")
    (endpoint,) = operator["spec"]["podMetricsEndpoints"]
    assert endpoint["honorLabels"] is True
    (endpoint,) = serving["spec"]["podMetricsEndpoints"]
    meta = "__meta_kubernetes_pod_label_" + CACHE_LABEL.replace(".", "_").replace("/", "_")
    assert endpoint["relabelings"] == [{"sourceLabels": [meta], "targetLabel": "cache"}]
