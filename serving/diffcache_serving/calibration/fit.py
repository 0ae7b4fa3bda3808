"""Decides levels from paired qualities. Pure.

It is a fixed-sequence test (Maurer, Hothorn & Lehmacher 1995). The bins of a level are tested from similarity 1
downwards at 5% each, and the first bin that fails ends the level. So the chance that a level is wrongly granted
anywhere is at most 5%. The largest skip is tested first; the next one begins at the bin where it stopped. So thresholds
rise with the skip, and each level is tested on the similarities for which it will be used.

A bin passes if, on the fitting half,
  1. the bound of mean(cached - alpha * uncached) is at least 0: the quality is kept;
  2. the bounds of mean(cached - late start) and mean(cached - fewer steps) are at least -MARGIN of the uncached
     quality: the resume is not worse than alternatives of the same cost without a cache;
  3. mean(cached - fewer steps) itself is at least 0: fewer steps need only one field in the manifest, so a cache that
     is only almost as good is useless. There is no such condition for the late start: if the early steps contribute
     nothing, the two are equal, and the sign would be random. The report says instead whether the cache *earns* its
     skip.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from diffcache_core.cache.resume import Level
from diffcache_serving.calibration.settings import BINS, Band, Skip
from diffcache_serving.calibration.statistics import Clusters, lower_bound

MARGIN = 0.01
"""Share of the uncached quality that a resume may lose against a control and still count as not worse. It is half of
what alpha = .98 allows. A smaller value needs more pairs to pass; with a larger value levels may be granted where a
control is better."""

MIN_CLUSTERS = 10
"""Minimum number of parent concepts in a bin. With fewer, its bound is not reliable and the bin fails."""


@dataclass(frozen=True)
class Pair:
    """The qualities of one new prompt with one parent. Tuples have one value per candidate skip, rising."""

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
    reason: str  # why it failed; empty if it passed

    @property
    def passed(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class Fit:
    levels: tuple[Level, ...]  # rising
    tests: tuple[Test, ...]  # in the order made


def fit_levels(pairs: Sequence[Pair], skips: Sequence[Skip], alpha: float) -> Fit:
    """Returns the levels that `pairs` support. `pairs` must be only the fitting half."""
    levels: list[Level] = []
    tests: list[Test] = []
    at = 0  # the bin where the previous level stopped
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
    """Returns each level with the similarities for which it is used: up to the beginning of the next level."""
    rising = sorted(levels)
    edges = [*(level.similarity for level in rising), 1.0]
    return [(level, Band(low, high)) for level, (low, high) in zip(rising, itertools.pairwise(edges), strict=True)]


def clusterings(pairs: Sequence[Pair]) -> list[Clusters]:
    """Returns the clusters by the parent's concept, and by the new prompt's concept, because its pairs share their
    uncached runs."""
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
