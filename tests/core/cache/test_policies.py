"""Scores, credits and priors, by their definitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcache_core.cache.policies import (
    FIFO,
    LCBFU,
    LFU,
    LRU,
    POLICIES,
    HitStatistics,
    LCBFUClassic,
    StateUse,
    admits,
    credit_of_hit,
    prior_benefit,
    touch,
    trajectory_weights,
)

USE = StateUse(bytes=8192, k=8, benefit=4.0, uses=2, created=3, touched=9, age=0.25)


def test_scores() -> None:
    assert LCBFU().score(USE) == 0.25 + 4.0 / 8192
    assert LCBFUClassic().score(USE) == 3 * 8
    assert (LRU().score(USE), LFU().score(USE), FIFO().score(USE)) == (9, 2, 3)
    assert set(POLICIES) == {"LCBFU", "LCBFUClassic", "LRU", "LFU", "FIFO"}


@pytest.mark.parametrize(("k", "without", "credit"), [(5, 0, 5), (5, 3, 2), (5, 5, 1), (5, 4, 1), (10, 9, 2)])
def test_credit_is_what_no_other_state_would_have_saved_with_a_floor(k: int, without: int, credit: float) -> None:
    assert credit_of_hit(k, without) == credit


def test_a_hit_decays_the_benefit_and_stands_the_state_at_the_current_age() -> None:
    assert touch(USE, 3.0, clock=12, age=0.5) == StateUse(8192, 8, 0.9 * 4.0 + 3.0, 3, 3, 12, 0.5)


def test_a_new_state_starts_with_twice_the_mean_credit() -> None:
    assert prior_benefit(HitStatistics()) == 2.0
    assert prior_benefit(HitStatistics(hits=4, credits=10.0)) == 5.0


def test_trajectory_weights_follow_width_and_grants() -> None:
    assert trajectory_weights((2, 4, 6), {}) == pytest.approx({2: 1.0, 4: 1.0, 6: 1.0})
    weights = trajectory_weights((2, 4, 8), {4: 8})
    assert weights[4] > weights[8] > weights[2]
    assert trajectory_weights((), {}) == {}


@given(st.sets(st.integers(1, 50), min_size=1), st.dictionaries(st.integers(1, 50), st.integers(0, 1000)))
def test_trajectory_weights_have_mean_one(ks: set[int], grants: dict[int, int]) -> None:
    weights = trajectory_weights(tuple(sorted(ks)), grants)
    assert sum(weights.values()) / len(weights) == pytest.approx(1)
    assert all(weight > 0 for weight in weights.values())


@pytest.mark.parametrize(
    ("is_full", "granted", "top", "admitted"),
    [(False, 50, 50, True), (True, 50, 50, False), (True, 25, 50, True), (True, 0, 0, True), (True, 0, 50, True)],
)
def test_a_full_cache_refuses_what_its_parent_covers(is_full: bool, granted: int, top: int, admitted: bool) -> None:
    assert admits(is_full=is_full, granted_skip=granted, top_skip=top) is admitted
