"""What the registries say of levels and of each DiffusionCache."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from diffcache_core.cache.resume import Level, Levels
from diffcache_core.resource.status import Condition, DiffusionCacheStatus, TuningStatus
from diffcache_operator.metrics import Metrics as OperatorMetrics
from diffcache_operator.queue import Key, Schedule
from diffcache_serving.metrics import Metrics as ServingMetrics
from tests.operator.resources import cache


def samples(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    """By the values of the labels, which are in the order of their names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name
    }


class TestLevels:
    def test_of_a_bin_in_which_a_level_begins_both_are_told(self) -> None:
        metrics = ServingMetrics("emoji")
        metrics.levels_in_force(Levels((Level(13, 0.62), Level(25, 0.72), Level(38, 0.9)), 13))
        assert samples(metrics.registry, "diffcache_level_similarity") == {("13",): 0.62, ("25",): 0.72, ("38",): 0.9}
        bins = {"13": ("0.60", "0.65", "0.70"), "25": ("0.70", "0.75", "0.80", "0.85"), "38": ("0.90", "0.95")}
        told = samples(metrics.registry, "diffcache_level_served")
        assert told == {(similarity, skip): 1 for skip, row in bins.items() for similarity in row}

    def test_earlier_ones_are_forgotten(self) -> None:
        metrics = ServingMetrics("emoji")
        metrics.levels_in_force(Levels((Level(13, 0.4),)))
        metrics.levels_in_force(Levels())
        assert samples(metrics.registry, "diffcache_level_similarity") == {}
        assert samples(metrics.registry, "diffcache_level_served") == {}

    def test_a_level_that_another_one_covers_serves_no_bin(self) -> None:
        metrics = ServingMetrics("emoji")
        metrics.levels_in_force(Levels((Level(13, 0.95), Level(25, 0.95))))
        assert samples(metrics.registry, "diffcache_level_served") == {("0.95", "25"): 1}


def condition(kind: str, status: str, reason: str) -> Condition:
    return Condition.model_validate(
        {"type": kind, "status": status, "reason": reason, "message": "", "observedGeneration": 1}
        | {"lastTransitionTime": "2026-01-01T00:00:00Z"}
    )


class TestCaches:
    def test_each_is_told_as_it_is_now(self) -> None:
        metrics = OperatorMetrics()
        resource = cache(serving={"replicas": 1}, tuning={"quality": {"targetPercent": 97}})
        starting = DiffusionCacheStatus(conditions=[condition("Ready", "False", "Starting")])
        serving = DiffusionCacheStatus(
            conditions=[condition("Ready", "True", "Serving")], tuning=TuningStatus(revision=3)
        )
        for status, ready in ((starting, ("Starting", "Ready")), (serving, ("Serving", "Ready"))):
            metrics.caches.show(resource, status)
            told = samples(metrics.registry, "diffcache_operator_cache_condition")
            assert told == {("emoji", "demo", *ready): float(status is serving)}
        key = ("emoji", "demo")
        assert samples(metrics.registry, "diffcache_operator_cache_replicas") == {key: 1}
        assert samples(metrics.registry, "diffcache_operator_cache_quality_target") == {key: 0.97}
        assert samples(metrics.registry, "diffcache_operator_cache_tuning_revision") == {key: 3}

    def test_one_that_is_gone_leaves_no_series(self) -> None:
        metrics = OperatorMetrics()
        metrics.caches.show(cache(), DiffusionCacheStatus())
        metrics.caches.forget("demo", "emoji")
        metrics.caches.forget("demo", "never-seen")
        assert samples(metrics.registry, "diffcache_operator_cache_replicas") == {}


def test_the_queue_lags_by_what_waits_not_by_what_runs_or_is_yet_to_come() -> None:
    schedule = Schedule()
    assert schedule.lag(0.0) == 0
    schedule.add(Key("ns", "soon"), 0.0, after=100.0)
    assert schedule.lag(1.0) == 0
    schedule.add(Key("ns", "a"), 1.0)
    schedule.add(Key("ns", "b"), 2.0)
    assert schedule.lag(5.0) == 4
    schedule.take(5.0)
    assert schedule.lag(5.0) == 3
