"""The operator's own metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()

_SECONDS = (0.03, 0.1, 0.3, 1, 3, 10, 30)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "diffcache_operator_reconciles", "Reconciles, by result.", ("result",), registry=self.registry
        )
        self.seconds = Histogram(
            "diffcache_operator_reconcile_seconds", "Time of a reconcile.", buckets=_SECONDS, registry=self.registry
        )
        self.writes = Counter(
            "diffcache_operator_writes", "Objects written, by kind.", ("kind",), registry=self.registry
        )
        self.resources = Gauge("diffcache_operator_resources", "DiffusionCaches known.", registry=self.registry)
        for result in ("ok", "error"):
            self.reconciles.labels(result)
