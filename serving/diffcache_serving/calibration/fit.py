"""From paired qualities to levels. Pure.

A fixed-sequence test (Maurer, Hothorn & Lehmacher 1995): each level's bins are tested from similarity 1 downwards at
5% each, and the first that fails ends the level, so a level is wrongly granted anywhere with a chance of at most 5%.
The largest skip comes first and the next one begins where it stopped: thresholds rise with the skip, and each level
is tested on the similarities that it will really serve.

A bin passes when, on the fitting half,
  1. the bound of mean(cached - alpha * uncached) is at least 0: the quality is kept;
  2. the bounds of mean(cached - late start) and mean(cached - fewer steps) are at least -MARGIN of the uncached
     quality: it is not worse than what costs the same and needs no cache;
  3. mean(cached - fewer steps) itself is at least 0: fewer steps are one field in any manifest, so a cache that only
     comes near them is no use. Late start has no such condition: where the early steps carry nothing the two are equal
     by nature, and a condition on the sign would toss a coin. Whether the cache *earns* its skip is reported instead.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from diffcache_core.cache.resume import Level
from diffcache_serving.calibration.settings import BINS, Band, Skip
from diffcache_serving.calibration.statistics import Clusters, lower_bound

MARGIN = 0.01
"""Share of the uncached quality that a resume may lose against a control and still count as not worse: half of what
alpha = .98 allows. Smaller needs more pairs to pass; larger credits the cache with what others do better."""

MIN_CLUSTERS = 10
"""Concepts of parents in a bin below which its bound is not believed, so the bin fails."""


@dataclass(frozen=True)
class Pair:
    """The qualities of one new prompt, with one parent. Tuples have one value a candidate skip, rising."""

    similarity: float
    concept: str
    parent_concept: str
    uncached: float
    cached: tuple[float, ...]
    late_start: tuple[float, ...]
    fewer_steps: tuple[float, ...]
    random_parent: tuple[float, ...]


@dataclass(frozen=True)
class Test:
    """One test of the sequence. Bounds are one-sided 95%, in units of the quality."""

    skip_percent: int
    band: Band
    pairs: int
    concepts: int  # of the parents
    quality: float  # bound of mean(cached - alpha * uncached)
    late_start: float  # bound of mean(cached - late start)
    fewer_steps: float  # bound of mean(cached - fewer steps)
    reason: str  # why it failed; empty = passed

    @property
    def passed(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class Fit:
    levels: tuple[Level, ...]  # rising
    tests: tuple[Test, ...]  # in the order made


def fit_levels(pairs: Sequence[Pair], skips: Sequence[Skip], alpha: float) -> Fit:
    """The levels that `pairs` (the fitting half, nothing else) support."""
    levels: list[Level] = []
    tests: list[Test] = []
    at = 0  # the bin where the level before stopped
    for index, skip in reversed(list(enumerate(skips))):
        granted = at
        for band in BINS[at:]:
            test = _test_bin([p for p in pairs if band.holds(p.similarity)], (index, skip), band, alpha)
            tests.append(test)
            if not test.passed:
                break
            granted += 1
        if granted > at:
            levels.append(Level(skip.percent, BINS[granted - 1].low))
        at = granted
    return Fit(tuple(sorted(levels)), tuple(tests))


def bands_of(levels: Sequence[Level]) -> list[tuple[Level, Band]]:
    """Each level with the similarities that it serves: up to where the next one begins."""
    rising = sorted(levels)
    edges = [*(level.similarity for level in rising), 1.0]
    return [(level, Band(low, high)) for level, (low, high) in zip(rising, itertools.pairwise(edges), strict=True)]


def clusterings(pairs: Sequence[Pair]) -> list[Clusters]:
    """By the parent's concept and, because its uncached runs are shared, by the new prompt's."""
    return [[p.parent_concept for p in pairs], [p.concept for p in pairs]]


def _test_bin(pairs: Sequence[Pair], candidate: tuple[int, Skip], band: Band, alpha: float) -> Test:
    index, skip = candidate
    concepts = len({p.parent_concept for p in pairs})
    if concepts < MIN_CLUSTERS:
        nothing = float("-inf")
        reason = f"too few pairs: {concepts} concepts of parents, needs {MIN_CLUSTERS}"
        return Test(skip.percent, band, len(pairs), concepts, nothing, nothing, nothing, reason)
    by = clusterings(pairs)
    quality = lower_bound([p.cached[index] - alpha * p.uncached for p in pairs], by)
    late = lower_bound([p.cached[index] - p.late_start[index] for p in pairs], by)
    over_fewer = [p.cached[index] - p.fewer_steps[index] for p in pairs]
    fewer = lower_bound(over_fewer, by)
    floor = -MARGIN * sum(p.uncached for p in pairs) / len(pairs)
    reason = ""
    if quality < 0:
        reason = f"may lose more than {1 - alpha:.1%} of the quality"
    elif late < floor:
        reason = "may be worse than a late start"
    elif fewer < floor or sum(over_fewer) < 0:
        reason = "may be worse than fewer steps"
    return Test(skip.percent, band, len(pairs), concepts, quality, late, fewer, reason)
