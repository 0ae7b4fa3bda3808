"""What the metrics say of the levels in force."""

from __future__ import annotations

from diffcache_core.cache.policies import admits
from diffcache_core.cache.resume import Level, Levels
from diffcache_core.tuning.evidence import CLOSED
from diffcache_serving.metrics import Metrics


def served(levels: Levels) -> dict[str, list[str]]:
    """Bins of similarity by the skip that the metrics show as served in them."""
    metrics = Metrics("test")
    metrics.levels_in_force(levels)
    found: dict[str, list[str]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.name == "diffcache_level_served":
                found.setdefault(sample.labels["skip"], []).append(sample.labels["similarity"])
    return found


def test_a_closed_level_serves_no_bin() -> None:
    assert served(Levels((Level(13, 0.9), Level(25, CLOSED), Level(38, CLOSED)))) == {"13": ["0.90", "0.95"]}
    assert served(Levels((Level(13, 0.9), Level(25, 1.0)))) == {"13": ["0.90", "0.95"], "25": ["0.95"]}
    assert served(Levels((Level(13, CLOSED),))) == {}


def test_a_closed_level_is_not_the_top_that_a_full_cache_leaves_out() -> None:
    levels = Levels((Level(13, 0.9), Level(25, CLOSED)))
    assert levels.top_skip == 13
    assert not admits(is_full=True, granted_skip=13, top_skip=levels.top_skip)
