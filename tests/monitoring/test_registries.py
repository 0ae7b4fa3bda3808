"""What the registries say of levels and of each DiffusionCache."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from diffcache_core.resume import Level, Levels
from diffcache_serving.metrics import Metrics as ServingMetrics


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
