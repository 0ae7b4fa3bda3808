"""In worlds whose truth is known the tuner ends where it should, and quality keeps its target all the way.

`benchmarks/tuning_worlds.py` runs more and longer, beside simple controls.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from diffcache_core.cache.resume import Level, Levels
from diffcache_core.tuning.comparisons import percent_to_try
from diffcache_core.tuning.evidence import CLOSED
from diffcache_core.tuning.tuner import Goals, Tuning, tune
from tests.core.tuning.worlds import Quality, World, goals, granted, hopeless_world, probed, random_world

LEVELS = (Level(13, 0.6), Level(25, 0.8), Level(38, 0.9), Level(50, 0.95))


def run(world: World, tuning: Tuning, goals: Goals, looks: int) -> list[Tuning]:
    """What was in force after each look."""
    changed_at: float | None = None
    passed = []
    for _ in range(looks):
        decision = tune(tuning, world.step(tuning), goals, now=world.now, changed_at=changed_at)
        if decision.tuning != tuning:
            tuning, changed_at = decision.tuning, world.now
        passed.append(tuning)
    return passed


def steps_off(world: World, tuning: Tuning) -> list[int]:
    return [abs(world.off(level, 0.3)) for level in tuning.levels]


def test_probes_are_those_of_the_pods() -> None:
    for levels in (LEVELS, (Level(13, 0.7), Level(25, 0.7), Level(38, CLOSED))):
        similarity = np.linspace(0, 1, 201)
        expected = [percent_to_try(Levels(levels), float(s), 1000, cap=100, allowed_too=False) or 0 for s in similarity]
        assert probed(levels, similarity).tolist() == expected


def test_quality_keeps_its_target_over_the_whole_run_in_random_worlds() -> None:
    """200 worlds; half of them start with levels that are too loose. At most 16 may fall below."""
    below = 0
    for seed in range(200):
        world, tuning = random_world(seed)
        world.due = 600
        run(world, tuning, goals(), looks=16)
        below += world.whole_run() < world.quality.target
    assert below <= 16


def test_where_all_is_a_little_too_bad_hardly_anything_is_ever_loosened() -> None:
    loosened = 0
    for seed in range(100):
        world, tuning = hopeless_world(seed)
        loosened += any(now != tuning for now in run(world, tuning, goals(), looks=12))
    assert loosened <= 5


@pytest.mark.parametrize("uncached", [(0.74, 0.1, 0.05), (0.31, 0.04, 0.02)], ids=["bundled", "photographs"])
@pytest.mark.parametrize("start", [0.45, 0.75, 0.95])
def test_levels_end_within_one_step_of_the_truth(uncached: tuple[float, float, float], start: float) -> None:
    mean, spread, noise = uncached
    crossing = {13: 0.52, 25: 0.63, 38: 0.77, 50: 0.88}
    quality = Quality(crossing, slope=0.5, target=0.95, uncached=mean, spread=spread, noise=noise)
    world = World(quality, seed=1, due=2000)
    end = run(world, Tuning(tuple(Level(skip, start) for skip in crossing), 1), goals(), looks=40)[-1]
    assert max(steps_off(world, end)) <= 1


@pytest.mark.parametrize("by", [0.15, -0.15], ids=["worse", "better"])
def test_a_drift_of_the_curve_is_followed(by: float) -> None:
    quality = Quality({13: 0.52, 25: 0.63, 38: 0.77}, slope=0.6, target=0.95)
    world = World(quality, seed=2, due=2000)
    before = run(world, Tuning(tuple(Level(skip, 0.8) for skip in quality.crossing), 1), goals(), looks=30)[-1]
    assert max(steps_off(world, before)) <= 1
    world.quality = quality.shifted(by)
    after = run(world, before, goals(), looks=40)[-1]
    assert max(steps_off(world, after)) <= 1
    assert after != before


def test_a_curve_that_drifts_there_and_back_leaves_the_target_kept() -> None:
    quality = Quality({13: 0.52, 25: 0.63, 38: 0.77}, slope=0.6, target=0.95)
    world = World(quality, seed=3, due=1000)
    tuning = Tuning(tuple(Level(skip, 0.9) for skip in quality.crossing), 1)
    for shift in (0.0, 0.1, 0.0, 0.1, 0.0):
        world.quality = quality.shifted(shift)
        tuning = run(world, tuning, goals(), looks=20)[-1]
    assert world.whole_run() >= 0.95


def test_with_an_objective_levels_are_only_as_loose_as_it_needs() -> None:
    """p95 falls with the share of steps skipped: at .12 the objective of 1 s is met."""
    quality = Quality({13: 0.42, 25: 0.5, 38: 0.6}, slope=0.5, target=0.95)
    world = World(quality, seed=4, due=1500, p95=lambda skipped: 1.25 - 2 * skipped)
    passed = run(world, Tuning((Level(13, 0.9), Level(25, 0.95), Level(38, 0.95)), 1), goals(p95=1.0), looks=60)
    skipped = [float(granted(tuning.levels, world.crowd).mean()) / 100 for tuning in passed]
    assert 0.7 <= world.p95(skipped[-1]) <= 1.0
    assert passed[-1] == passed[-10]
    free = run(World(quality, seed=4, due=1500), passed[0], goals(), looks=60)[-1]
    assert sum(level.similarity for level in free.levels) < sum(level.similarity for level in passed[-1].levels)


def test_an_objective_that_is_met_without_the_cache_closes_it() -> None:
    world = World(Quality({13: 0.4, 25: 0.5}, slope=0.5, target=0.95), seed=5, p95=lambda skipped: 0.1)
    end = run(world, Tuning((Level(13, 0.9), Level(25, 0.95)), 1), goals(p95=1.0), looks=30)[-1]
    assert [level.similarity for level in end.levels] == [CLOSED, CLOSED]


@pytest.mark.parametrize("start", [1 / 16, 1 / 3, 1.0, 3.0, 16.0])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_capacity_ends_within_a_tenth_of_the_knee(start: float, noise: float) -> None:
    scale, top, gain = 2.0**30, 0.5, 0.02

    def saved(capacity: float) -> float:
        return top * (1 - math.exp(-((capacity / scale) ** 0.7)))

    tried = [scale * 2 ** (i / 1000) for i in range(-5000, 5000)]
    knee = max(tried, key=lambda capacity: saved(capacity) - gain * math.log2(capacity))
    world = World(Quality({}, 0.5, 0.95), seed=6, saved=saved, saved_noise=noise)
    passed = run(world, Tuning((), int(knee * start)), goals(low=2**20, high=2**40), looks=40)
    assert passed[-1].capacity_bytes == pytest.approx(knee, rel=0.1)
    for before, after in itertools.pairwise(passed):
        assert 0.49 <= after.capacity_bytes / before.capacity_bytes <= 2.04


def test_capacity_stops_at_its_bounds() -> None:
    world = World(Quality({}, 0.5, 0.95), seed=7, saved=lambda capacity: min(1.0, capacity / 2**34))
    assert run(world, Tuning((), 2**30), goals(low=2**28, high=3 * 2**30), looks=10)[-1].capacity_bytes == 3 * 2**30
    world.saved = lambda capacity: 0.1
    assert run(world, Tuning((), 2**30), goals(low=2**28, high=3 * 2**30), looks=10)[-1].capacity_bytes == 2**28
