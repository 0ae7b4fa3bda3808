"""The operator's own metrics, and its figures of each DiffusionCache."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from diffcache_core.resource.spec import DiffusionCache
from diffcache_core.resource.status import DiffusionCacheStatus

disable_created_metrics()

_SECONDS = (0.03, 0.1, 0.3, 1, 3, 10, 30)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "diffcache_operator_reconciles", "Reconciles, by result.", ("result",), registry=self.registry
        )
        self.scaling_looks = Counter(
            "diffcache_operator_scaling_looks",
            "Looks of the scaling loops at their pods, by result.",
            ("result",),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "diffcache_operator_reconcile_seconds", "Time of a reconcile.", buckets=_SECONDS, registry=self.registry
        )
        self.writes = Counter(
            "diffcache_operator_writes", "Objects written, by kind.", ("kind",), registry=self.registry
        )
        self.resources = Gauge("diffcache_operator_resources", "DiffusionCaches known.", registry=self.registry)
        self.running = Gauge("diffcache_operator_reconciles_running", "Reconciles under way.", registry=self.registry)
        self.lag = Gauge(
            "diffcache_operator_queue_lag_seconds",
            "How long the reconcile or look of a scaling loop that is most overdue has waited for a worker.",
            registry=self.registry,
        )
        self._api_seconds = Histogram(
            "diffcache_operator_api_seconds",
            "Time of a call of the API server; code 0: it did not answer.",
            ("verb", "code"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.caches = CacheFigures()
        self.registry.register(self.caches)
        for result in ("ok", "error"):
            self.reconciles.labels(result)
            self.scaling_looks.labels(result)

    def called(self, verb: str, code: int, seconds: float) -> None:
        """Records that one call of the API server ended."""
        self._api_seconds.labels(verb, code).observe(seconds)


class CacheFigures(Collector):
    """Exports series of each DiffusionCache as long as it exists. The label `namespace` is the cache's, not the
    operator's: scrape with honor_labels."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, str], tuple[DiffusionCache, DiffusionCacheStatus]] = {}

    def show(self, resource: DiffusionCache, status: DiffusionCacheStatus) -> None:
        self._shown[resource.metadata.namespace or "", resource.metadata.name] = (resource, status)

    def forget(self, namespace: str, name: str) -> None:
        self._shown.pop((namespace, name), None)

    def forget_all(self) -> None:
        self._shown.clear()

    def collect(self) -> Iterator[Metric]:
        def family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"diffcache_operator_cache_{name}", text, labels=("namespace", "cache", *labels))

        replicas = family("replicas", "Pods that are wanted.")
        target = family("quality_target", "What the quality ratio of resumed pictures must reach, from 0 to 1.")
        revision = family("tuning_revision", "Of the tuner's last decision; 0: none.")
        condition = family("condition", "1 if the condition is True, else 0.", "type", "reason")
        for key, (resource, status) in self._shown.items():
            replicas.add_metric(key, resource.spec.serving.replicas)
            target.add_metric(key, resource.spec.tuning.quality.target_percent / 100)
            revision.add_metric(key, status.tuning.revision if status.tuning is not None else 0)
            for one in status.conditions:
                condition.add_metric((*key, one.type, one.reason), float(one.status == "True"))
        yield from (replicas, target, revision, condition)
