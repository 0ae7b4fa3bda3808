"""A real Prometheus scrapes real pods: dashboards have data, alerts know what is the matter."""

from __future__ import annotations

import math
from functools import partial

import pytest

from tests.cluster import prometheus
from tests.cluster.kube import Kube, cache, eventually
from tests.cluster.pods import SERVING, draw, start_client
from tests.monitoring.rules import DASHBOARDS, queries, series_named, variables

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PROMPTS = ("red apple, noto style", "red apple, flat style", "green apple, noto style", "green pear, flat style")
COMPARED = {"mode": "Recommend", "quality": {"shadowPercent": 20}}
"""With comparisons often enough to see some within a minute."""


def test_every_query_of_the_dashboards_has_data(operator: Kube, namespace: Kube) -> None:
    prometheus.start(namespace)
    namespace.apply(cache(tuning=COMPARED, prometheus={"url": prometheus.url(namespace)}))
    start_client(namespace)
    namespace.wait_ready("emoji")
    assert "Read-only file system" in namespace.refused("exec", "prometheus", "--", "touch", "/etc/x")
    left = [chosen(query, namespace) for dashboard in DASHBOARDS for query in queries(dashboard)]

    def look() -> bool:
        nonlocal left
        draw(namespace, *PROMPTS)
        left = [query for query in left if not finite(namespace, query)]
        assert left == []  # is told if it lasts
        return True

    eventually(look, 300, every=1, what="data for every query")


def chosen(query: str, inside: Kube) -> str:
    return query.replace("$namespace", inside.namespace).replace("$cache", "emoji")


def finite(inside: Kube, query: str) -> list[float]:
    values = [float(sample["value"][1]) for sample in prometheus.query(inside, query)]
    return [value for value in values if math.isfinite(value)]


def test_variables_name_this_cache(operator: Kube, namespace: Kube) -> None:
    prometheus.start(namespace)
    namespace.apply(cache())
    for dashboard in DASHBOARDS:
        (series,) = {name for query in variables(dashboard) for name in series_named(query)}
        selected = f'{series}{{namespace="{namespace.namespace}", cache="emoji"}}'
        eventually(partial(prometheus.query, namespace, selected), 120, what=selected)


def test_an_alert_is_pending_while_no_pod_serves(operator: Kube, namespace: Kube) -> None:
    prometheus.start(namespace)
    namespace.apply(cache(serving={"image": "diffcache.test/none:1"}))
    alert = f'ALERTS{{alertname="DiffcacheNoPodServes", namespace="{namespace.namespace}", cache="emoji"}}'
    eventually(lambda: prometheus.query(namespace, alert), 90, what="the alert")
    namespace.patch("diffusioncache", "emoji", {"spec": {"serving": {"image": SERVING}}})
    namespace.wait_ready("emoji")
    eventually(lambda: not prometheus.query(namespace, alert), 60, what="the alert gone")
