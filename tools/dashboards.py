"""The two Grafana dashboards, as one line a panel. `make gen` writes them into the chart as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

JSON = dict[str, Any]

WIDTH, HEIGHT = 24, 8  # Grafana's grid: columns, and rows of a panel
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
CACHE = 'namespace=~"$namespace", cache=~"$cache"'
EACH = "{{namespace}}/{{cache}}"


@dataclass(frozen=True)
class Query:
    expr: str
    legend: str = EACH


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str  # Grafana's name of it
    queries: Sequence[Query]
    width: int = 8
    text: str = ""
    stacked: bool = False


def query(series: str, legend: str = EACH, more: str = "") -> Query:
    """A series of the chosen caches as it is."""
    return Query(f"{series}{{{CACHE}{more}}}", legend)


USERS = (
    Panel(
        "Steps saved",
        "percentunit",
        [query("diffcache:steps_saved:ratio5m")],
        text="Skipped steps over all steps, misses included: the number to watch.",
    ),
    Panel("Hits", "percentunit", [query("diffcache:hits:ratio5m")], text="Of the requests that may read the cache."),
    Panel(
        "Requests by result",
        "reqps",
        [Query(f"sum by (result) (diffcache:requests:rate5m{{{CACHE}}})", "{{result}}")],
        stacked=True,
    ),
    Panel(
        "Latency",
        "s",
        [
            query("diffcache:request_seconds:p50_5m", f"p50 {EACH}"),
            query("diffcache:request_seconds:p95_5m", f"p95 {EACH}"),
        ],
        text="From the parsed request to the encoded picture.",
    ),
    Panel(
        "Time by phase",
        "s",
        [
            Query(
                f"sum by (phase) (rate(diffcache_phase_seconds_sum{{{CACHE}}}[5m]))"
                f" / sum by (phase) (rate(diffcache_phase_seconds_count{{{CACHE}}}[5m]))",
                "{{phase}}",
            )
        ],
        stacked=True,
        text="Mean over all requests.",
    ),
    Panel("Errors", "percentunit", [query("diffcache:errors:ratio5m")]),
    Panel(
        "Quality by level",
        "percentunit",
        [
            query("diffcache:quality:ratio1d", f"{EACH} skip {{{{skip}}}}%"),
            Query(f"max by (namespace, cache) (diffcache_operator_cache_quality_target{{{CACHE}}})", f"{EACH} target"),
        ],
        text="Mean score of resumed pictures over that of the same ones drawn without the cache, of a day.",
    ),
    Panel(
        "Standard error of the quality",
        "percentunit",
        [query("diffcache:quality:stderr1d", f"{EACH} skip {{{{skip}}}}%")],
    ),
    Panel(
        "Levels in force",
        "none",
        [
            Query(
                f"max by (namespace, cache, skip) (diffcache_level_similarity{{{CACHE}}})",
                f"{EACH} skip {{{{skip}}}}%",
            )
        ],
        text="From this similarity on so much may be skipped.",
    ),
    Panel(
        "Comparisons",
        "reqps",
        [Query(f"sum by (outcome) (rate(diffcache_shadow_runs_total{{{CACHE}}}[5m]))", "{{outcome}}")],
        stacked=True,
        text="Shadow runs, which measure the quality. More than 10% dropped freezes tuning.",
    ),
    Panel(
        "Steps of comparisons",
        "percentunit",
        [query("diffcache:shadow_steps:ratio1h")],
        text="Beside those asked for; quality.shadowPercent bounds them.",
    ),
    Panel(
        "Steps saved at other capacities",
        "percentunit",
        [
            Query(
                f"avg by (multiple) (diffcache_shadow_steps_saved_ratio{{{CACHE}}})",
                "{{multiple}} times the capacity",
            )
        ],
        text="Simulated beside the requests, keys only.",
    ),
    Panel(
        "Cache",
        "bytes",
        [
            Query(f"max by (namespace, cache) (diffcache_cache_bytes{{{CACHE}}})", f"{EACH} used"),
            Query(f"max by (namespace, cache) (diffcache_capacity_bytes{{{CACHE}}})", f"{EACH} capacity"),
        ],
    ),
    Panel("Entries", "short", [Query(f"max by (namespace, cache) (diffcache_entries{{{CACHE}}})")]),
    Panel(
        "Evictions by reason",
        "ops",
        [Query(f"sum by (reason) (diffcache:evictions:rate5m{{{CACHE}}})", "{{reason}}")],
        stacked=True,
    ),
    Panel(
        "States not deleted yet",
        "short",
        [Query(f"sum by (namespace, cache) (diffcache_states_undeleted{{{CACHE}}})")],
        text="They left the cache; the store still holds their bytes and is asked again.",
    ),
    Panel("Replicas", "short", [query("diffcache:replicas:count")]),
    Panel(
        "Backlog",
        "s",
        [query("diffcache:backlog_seconds:per_replica")],
        text="Seconds until all that waits and runs is done, a replica: what autoscaling follows.",
    ),
    Panel(
        "Replicas' worth of work",
        "short",
        [query("diffcache:busy_replicas:rate5m")],
        text="Device seconds a second, over all replicas.",
    ),
    Panel(
        "Tuner's revision",
        "short",
        [
            Query(
                f"max by (namespace, cache) (diffcache_operator_cache_tuning_revision{{{CACHE}}})", f"{EACH} decided"
            ),
            Query(f"min by (namespace, cache) (diffcache_tuning_revision{{{CACHE}}})", f"{EACH} followed by all pods"),
        ],
    ),
    Panel("Queue used", "percentunit", [query("diffcache:queue_used:ratio")], text="At 100% requests are refused."),
    Panel(
        "Index, ledger and store: failures",
        "ops",
        [Query(f"sum by (op) (rate(diffcache_index_errors_total{{{CACHE}}}[5m]))", "{{op}}")],
    ),
)

OPERATOR = (
    Panel("DiffusionCaches", "short", [Query("sum by (instance) (diffcache_operator_resources)", "{{instance}}")]),
    Panel(
        "Conditions that are not true",
        "short",
        [
            Query(
                "sum by (type, reason) "
                f"(max by (namespace, cache, type, reason) (diffcache_operator_cache_condition{{{CACHE}}}) == bool 0)",
                "{{type}}: {{reason}}",
            )
        ],
        text="How many caches have it.",
    ),
    Panel(
        "Replicas wanted",
        "short",
        [Query(f"max by (namespace, cache) (diffcache_operator_cache_replicas{{{CACHE}}})")],
    ),
    Panel(
        "Reconciles",
        "ops",
        [Query("sum by (result) (rate(diffcache_operator_reconciles_total[5m]))", "{{result}}")],
        stacked=True,
    ),
    Panel(
        "Failures",
        "percentunit",
        [
            Query(
                'sum(rate(diffcache_operator_reconciles_total{result="error"}[5m]))'
                " / sum(rate(diffcache_operator_reconciles_total[5m]))",
                "of the reconciles",
            )
        ],
    ),
    Panel(
        "Time of a reconcile",
        "s",
        [
            Query(
                f"histogram_quantile({q}, sum by (le) (rate(diffcache_operator_reconcile_seconds_bucket[5m])))",
                f"p{q * 100:.0f}",
            )
            for q in (0.5, 0.95)
        ],
    ),
    Panel(
        "Writes by kind",
        "ops",
        [Query("sum by (kind) (rate(diffcache_operator_writes_total[5m]))", "{{kind}}")],
        stacked=True,
        text="At rest there are none.",
    ),
    Panel(
        "Queue's lag",
        "s",
        [Query("max by (instance) (diffcache_operator_queue_lag_seconds)", "{{instance}}")],
        text="How long the reconcile that is most overdue has waited.",
    ),
    Panel(
        "Reconciles under way",
        "short",
        [Query("sum by (instance) (diffcache_operator_reconciles_running)", "{{instance}}")],
    ),
    Panel(
        "Calls of the API server",
        "ops",
        [Query("sum by (verb, code) (rate(diffcache_operator_api_seconds_count[5m]))", "{{verb}} {{code}}")],
        width=12,
        stacked=True,
        text="Code 0: it did not answer.",
    ),
    Panel(
        "Time of a call, p95",
        "s",
        [
            Query(
                "histogram_quantile(0.95, sum by (verb, le) (rate(diffcache_operator_api_seconds_bucket[5m])))",
                "{{verb}}",
            )
        ],
        width=12,
    ),
)


def dashboards() -> dict[str, str]:
    """File name and JSON of each."""
    made = {
        "users.json": dashboard("diffcache-users", "diffcache", "diffcache_build_info", USERS),
        "operator.json": dashboard(
            "diffcache-operator", "diffcache operator", "diffcache_operator_cache_replicas", OPERATOR
        ),
    }
    return {name: json.dumps(content, indent=1, ensure_ascii=False) + "\n" for name, content in made.items()}


def dashboard(uid: str, title: str, series: str, panels: Sequence[Panel]) -> JSON:
    """`series`: one that every cache has; the choice of namespaces and caches comes from it."""
    return {
        "uid": uid,
        "title": title,
        "tags": ["diffcache"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                variable("namespace", f"label_values({series}, namespace)"),
                variable("cache", f'label_values({series}{{namespace=~"$namespace"}}, cache)'),
            ]
        },
        "panels": placed(panels),
    }


def variable(name: str, values: str) -> JSON:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": values,
        "refresh": 2,  # with the time range
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def placed(panels: Sequence[Panel]) -> list[JSON]:
    """In rows from left to right."""
    made, x, y = [], 0, 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > WIDTH:
            x, y = 0, y + HEIGHT
        made.append(rendered(panel, number, {"x": x, "y": y, "w": panel.width, "h": HEIGHT}))
        x += panel.width
    return made


def rendered(panel: Panel, number: int, position: JSON) -> JSON:
    custom: JSON = {"fillOpacity": 10, "showPoints": "never"}
    if panel.stacked:
        custom["stacking"] = {"mode": "normal"}
    return {
        "id": number,
        "title": panel.title,
        "description": panel.text,
        "type": "timeseries",
        "datasource": SOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": one.expr, "legendFormat": one.legend}
            for i, one in enumerate(panel.queries)
        ],
    }
