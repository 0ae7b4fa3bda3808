"""From paired qualities to levels, on measurements whose truth is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcache_core.cache.resume import Levels
from diffcache_serving.calibration.fit import MIN_CLUSTERS, Pair, bands_of, fit_levels
from diffcache_serving.calibration.heldout import report_bins, report_levels
from diffcache_serving.calibration.settings import BIN_WIDTH, BINS, candidate_skips

SKIPS = candidate_skips(8)
ALPHA = 0.98
NOWHERE = 2.0  # a similarity that no pair has

Curve = Callable[[int, float], float]  # (index of the skip, similarity) -> quality / uncached


def build_pairs(cached: Curve, late: Curve, fewer: Curve, *, per_bin: int = 30, noise: float = 0.002) -> list[Pair]:
    """`per_bin` pairs in each bin, each of a concept of its own."""
    rng = np.random.default_rng(0)
    pairs = []
    for band, i in itertools.product(BINS, range(per_bin)):
        similarity = band.low + (i + 0.5) / per_bin * (band.high - band.low)
        uncached = 0.7 + 0.1 * rng.random()

        def qualities(curve: Curve, s: float = similarity, q: float = uncached) -> tuple[float, ...]:
            return tuple(q * curve(k, s) + noise * rng.normal() for k in range(len(SKIPS)))

        rows = (qualities(cached), qualities(late), qualities(fewer), qualities(lambda _k, _s: 0.5))
        pairs.append(Pair(similarity, f"new {i}", f"parent {i}", uncached, *rows))
    return pairs


def from_thresholds(thresholds: dict[int, float]) -> Curve:
    """Full quality from the skip's threshold on, .9 below it."""
    return lambda k, s: 1.0 if s >= thresholds.get(SKIPS[k].percent, NOWHERE) else 0.9


def bad(_k: int, _s: float) -> float:
    return 0.8


def table(pairs: list[Pair], alpha: float = ALPHA) -> dict[int, float]:
    return {level.skip_percent: level.similarity for level in fit_levels(pairs, SKIPS, alpha).levels}


def test_thresholds_land_where_the_quality_drops() -> None:
    truth = {63: 0.9, 50: 0.8, 38: 0.7, 25: 0.6, 13: 0.5}
    assert table(build_pairs(from_thresholds(truth), bad, bad)) == truth


def test_a_skip_that_is_nowhere_good_is_no_level() -> None:
    assert table(build_pairs(from_thresholds({38: 0.8}), bad, bad)) == {38: 0.8}


def test_a_smaller_skip_is_tested_only_below_the_larger_one() -> None:
    """25% keeps nothing where it would serve, however good it is above."""
    pairs = build_pairs(from_thresholds({38: 0.8, 25: 0.8}), bad, bad)
    fit = fit_levels(pairs, SKIPS, ALPHA)
    assert [test.band.high for test in fit.tests if test.skip_percent == 25] == [0.8]
    assert {level.skip_percent for level in fit.levels} == {38}


def test_the_first_failing_bin_ends_a_level() -> None:
    def hole(k: int, s: float) -> float:
        return 0.9 if k != 2 or 0.8 <= s < 0.9 else 1.0

    assert table(build_pairs(hole, bad, bad)) == {38: 0.9}


def test_what_a_late_start_does_better_is_not_granted() -> None:
    def late(_k: int, s: float) -> float:
        return 1.05 if s < 0.8 else 0.8

    assert table(build_pairs(from_thresholds({38: 0.5}), late, bad)) == {38: 0.8}


def test_what_fewer_steps_do_better_is_not_granted() -> None:
    def fewer(k: int, _s: float) -> float:
        return 1.05 if k >= 2 else 0.8

    assert table(build_pairs(from_thresholds({50: 0.7, 38: 0.7, 25: 0.7}), bad, fewer)) == {25: 0.7}


def test_as_good_as_a_late_start_is_granted_but_not_earned() -> None:
    pairs = build_pairs(from_thresholds({25: 0.7}), from_thresholds({25: 0.7}), bad)
    levels = fit_levels(pairs, SKIPS, ALPHA).levels
    assert [level.skip_percent for level in levels] == [25]
    (cell,) = report_levels(pairs, levels, SKIPS)
    assert not cell.earned


def test_better_than_both_controls_is_earned() -> None:
    pairs = build_pairs(from_thresholds({38: 0.8}), bad, bad)
    (cell,) = report_levels(pairs, fit_levels(pairs, SKIPS, ALPHA).levels, SKIPS)
    assert cell.earned
    assert abs(cell.quality_ratio.value - 1) < 0.01
    assert cell.pairs == 30 * 2


def test_too_few_concepts_grant_nothing() -> None:
    pairs = build_pairs(from_thresholds({38: 0.5}), bad, bad, per_bin=MIN_CLUSTERS - 1)
    fit = fit_levels(pairs, SKIPS, ALPHA)
    assert fit.levels == ()
    assert all("too few pairs" in test.reason for test in fit.tests)
    assert fit_levels([], SKIPS, ALPHA).levels == ()


def test_noise_that_hides_the_loss_grants_nothing() -> None:
    pairs = build_pairs(from_thresholds({38: 0.5}), bad, bad, noise=0.2)
    assert 38 not in table(pairs)


def test_a_smaller_alpha_never_raises_a_threshold() -> None:
    pairs = build_pairs(lambda k, s: 1 - 0.1 * (1 - s) * (k + 1), bad, bad)
    strict, loose = table(pairs, 0.98), table(pairs, 0.9)
    assert max(loose) >= max(strict)
    assert all(loose[skip] <= strict[skip] for skip in strict.keys() & loose.keys())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_thresholds_rise_with_the_skip_whatever_was_measured(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = rng.uniform(0.85, 1.05, (3, len(SKIPS), len(BINS)))
    curves = [lambda k, s, a=a: shape[a, k, min(int((1 - s) / BIN_WIDTH), len(BINS) - 1)] for a in range(3)]
    fit = fit_levels(build_pairs(*curves, per_bin=12, noise=0.01), SKIPS, ALPHA)
    Levels(fit.levels)  # raises where a threshold falls
    similarities = [level.similarity for level in fit.levels]
    assert similarities == sorted(set(similarities))
    tested = [(test.skip_percent, test.band) for test in fit.tests]
    assert len(set(tested)) == len(tested)


def test_the_held_out_half_describes_and_decides_nothing() -> None:
    """The report of a worse half is worse, of the same levels over the same bands."""
    good = build_pairs(from_thresholds({38: 0.8, 25: 0.6}), bad, bad)
    worse = [replace(pair, cached=tuple(0.9 * q for q in pair.cached)) for pair in good]
    levels = fit_levels(good, SKIPS, ALPHA).levels
    bands = [(level.skip_percent, str(band)) for level, band in bands_of(levels)]
    assert bands == [(25, "0.60-0.80"), (38, "0.80-1.00")]
    cells = report_levels(worse, levels, SKIPS)
    assert [(cell.skip_percent, str(cell.band)) for cell in cells] == bands
    assert all(cell.quality_ratio.value < 0.92 for cell in cells)


def test_every_bin_is_reported() -> None:
    cells = report_bins(build_pairs(bad, bad, bad, per_bin=10), SKIPS)
    assert len(cells) == len(SKIPS) * len(BINS)
    assert report_levels([], fit_levels([], SKIPS, ALPHA).levels, SKIPS) == []
