"""Bounds over clusters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcache_serving.calibration.statistics import estimate, lower_bound

VALUES = st.lists(st.floats(-1, 1), min_size=2, max_size=40)


@settings(max_examples=30, deadline=None)
@given(VALUES)
def test_the_value_lies_inside_its_interval(values: list[float]) -> None:
    names = [str(i) for i in range(len(values))]
    found = estimate(values, [names])
    assert found.value == pytest.approx(sum(values) / len(values), abs=1e-9)
    assert found.low <= found.value + 1e-9
    assert found.high >= found.value - 1e-9


@settings(max_examples=20, deadline=None)
@given(VALUES, st.floats(-1, 1))
def test_a_shift_of_all_values_shifts_the_bound(values: list[float], by: float) -> None:
    names = [str(i) for i in range(len(values))]
    assert lower_bound([v + by for v in values], [names]) == pytest.approx(lower_bound(values, [names]) + by, abs=1e-9)


def test_values_of_one_cluster_count_once() -> None:
    """Ten copies of each value tell nothing new, unless they are taken for independent ones."""
    values = np.random.default_rng(0).normal(size=12)
    copies, concepts = np.repeat(values, 10), np.repeat([f"c{i}" for i in range(12)], 10)
    once = lower_bound(list(values), [[f"c{i}" for i in range(12)]])
    assert lower_bound(list(copies), [list(concepts)]) == pytest.approx(once)
    assert lower_bound(list(copies), [[str(i) for i in range(120)]]) > once


def test_the_widest_clustering_holds() -> None:
    values = list(np.random.default_rng(1).normal(size=24))
    fine, coarse = [str(i) for i in range(24)], [str(i // 4) for i in range(24)]
    both = estimate(values, [fine, coarse])
    assert both.low == min(estimate(values, [fine]).low, estimate(values, [coarse]).low)
    assert both.high == max(estimate(values, [fine]).high, estimate(values, [coarse]).high)


def test_one_cluster_bounds_nothing() -> None:
    assert lower_bound([0.5, 0.6], [["apple", "apple"]]) == -math.inf


def test_a_ratio_of_means_is_resampled_pair_by_pair() -> None:
    uncached = [0.5, 0.9, 0.7, 0.8]
    found = estimate([q * 0.97 for q in uncached], [["a", "b", "c", "d"]], per=uncached)
    assert (found.value, found.low, found.high) == pytest.approx((0.97, 0.97, 0.97))


def test_the_bound_is_below_the_truth_as_often_as_it_says() -> None:
    """95% of the time, with the widening; 300 samples of 16 clusters of two, true mean 0."""
    rng, below = np.random.default_rng(2), 0
    names = [str(i // 2) for i in range(32)]
    for _ in range(300):
        values = np.repeat(rng.normal(size=16), 2) + 0.3 * rng.normal(size=32)
        below += lower_bound(list(values), [names]) <= 0
    assert 0.91 <= below / 300 <= 0.98
