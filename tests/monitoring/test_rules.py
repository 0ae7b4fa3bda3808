"""Recording rules and alerts, by promtool and against what is exported."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from prometheus_client import CollectorRegistry

from diffcache_core.names import MOMENTS
from diffcache_operator.metrics import Metrics as OperatorMetrics
from diffcache_serving.metrics import Metrics as ServingMetrics
from tests.clients.test_clients import run
from tests.monitoring.rules import (
    DASHBOARDS,
    ROOT,
    RULES,
    alerts,
    all_rules,
    queries,
    recorded,
    recordings_named,
    series_named,
    variables,
)

CASES = [Path(__file__).parent / "alerts.test.yaml", Path(__file__).parent / "recordings.test.yaml"]


def exported() -> set[str]:
    """The names of all series of both processes, as Prometheus knows them."""
    return names(ServingMetrics("emoji").registry) | names(OperatorMetrics().registry)


def names(registry: CollectorRegistry) -> set[str]:
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {family.name + suffix for family in registry.collect() for suffix in suffixes[family.type]}


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.get("record") or rule["alert"])
def test_what_a_rule_reads_is_exported_or_recorded(rule: dict[str, str]) -> None:
    assert series_named(rule["expr"]) - exported() == set()
    assert recordings_named(rule["expr"]) - recorded() == set()


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_what_a_dashboard_reads_is_exported_or_recorded(dashboard: Path) -> None:
    for query in queries(dashboard) + variables(dashboard):
        assert series_named(query) - exported() == set(), query
        assert recordings_named(query) - recorded() == set(), query


def test_no_decision_rests_on_a_recording_rule() -> None:
    """They may be missing, old or changed by whoever runs the Prometheus: they feed dashboards and alerts only."""
    sources = [path for part in ("core", "operator", "serving") for path in (ROOT / part).rglob("*.py")]
    assert len(sources) > 100
    assert [path.name for path in sources if recordings_named(path.read_text()) & recorded()] == []


def test_every_alert_has_a_section_in_the_runbook() -> None:
    text = (ROOT / "docs/runbook.md").read_text()
    sections = re.findall(r"^## (Diffcache\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in sections] == list(alerts())
    for name, body in sections:
        assert [word for word in ("**Means**", "**Look at**", "**Do**") if word not in body] == [], name


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_how_bad_it_is_and_where_to_read_on(name: str) -> None:
    alert = alerts()[name]
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
    assert "for" in alert


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = {case["name"]: case["promql_expr_test"] for case in yaml.safe_load(CASES[0].read_text())["tests"]}
    assert cases.keys() == alerts().keys()
    for name, checks in cases.items():
        firing = [bool(c["exp_samples"]) for c in checks if f'alertname="{name}", alertstate="firing"' in c["expr"]]
        assert set(firing) == {False, True}, name


@pytest.mark.clients
def test_promtool_has_no_complaint() -> None:
    ran = run("promtool", "check", "rules", "--lint-fatal", str(RULES))
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.clients
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_promtool_test_rules(case: Path) -> None:
    promtool_test(case)


@pytest.mark.clients
def test_quality_and_its_standard_error_are_those_of_the_pairs(tmp_path: Path) -> None:
    """A ratio of means, and the error that its residuals give (delta method)."""
    minutes, random = 120, np.random.default_rng(5)
    without = random.normal(0.30, 0.03, minutes)
    resumed = 0.97 * without + random.normal(0, 0.01, minutes)
    products = {
        "c": resumed,
        "u": without,
        "cc": resumed * resumed,
        "uu": without * without,
        "cu": resumed * without,
    }
    assert tuple(products) == MOMENTS
    labels = 'namespace="n", cache="a", pod="a-0", skip="25", similarity="0.70"'
    ratio = resumed.mean() / without.mean()
    residuals = resumed - ratio * without
    error = residuals.std(ddof=1) / np.sqrt(minutes) / without.mean()
    told = '{namespace="n", cache="a", skip="25"}'
    case = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": f"diffcache_level_served{{{labels}}}", "values": f"1x{minutes}"},
                    {"series": f"diffcache_quality_pairs_total{{{labels}}}", "values": f"0+1x{minutes}"},
                    *(
                        {"series": f'diffcache_quality_sum_total{{{labels}, moment="{moment}"}}', "values": sums(each)}
                        for moment, each in products.items()
                    ),
                ],
                "promql_expr_test": [
                    {
                        "expr": f"round(diffcache:quality:{name}1d * 1e6)",
                        "eval_time": f"{minutes}m",
                        "exp_samples": [{"labels": told, "value": round(float(value) * 1e6)}],
                    }
                    for name, value in (("ratio", ratio), ("stderr", error))
                ],
            }
        ],
    }
    path = tmp_path / "quality.json"
    path.write_text(json.dumps(case))
    promtool_test(path)


def sums(each: np.ndarray) -> str:
    """A counter's values, a minute apart, beginning at 0."""
    return " ".join(f"{value:.15g}" for value in np.concatenate([[0.0], each.cumsum()]))


def promtool_test(case: Path) -> None:
    ran: subprocess.CompletedProcess[str] = run("promtool", "test", "rules", str(case))
    assert ran.returncode == 0, ran.stdout + ran.stderr
