"""Who is compared, at which skip, and that the budget of steps holds whatever comes."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcache_core.cache.resume import Level, Levels, skip_to_k
from diffcache_core.names import MOMENTS
from diffcache_core.tuning.comparisons import (
    BURST_STEPS,
    HEADROOM,
    REACH,
    WORST_COST,
    MeanCost,
    StepBudget,
    fraction_of,
    granted_percent,
    is_due,
    moments,
    percent_to_try,
)

LEVELS = Levels((Level(13, 0.40), Level(25, 0.70), Level(38, 0.90)), reseed_skip_percent=38)
SHARES = st.floats(0, 1)
STEPS = st.integers(1, 1000)


@st.composite
def tables(draw: st.DrawFn) -> Levels:
    percents = sorted(draw(st.sets(st.integers(1, 99), max_size=6)))
    similarities = sorted(draw(st.lists(st.floats(0, 1.01), min_size=len(percents), max_size=len(percents))))
    return Levels(tuple(map(Level, percents, similarities)), draw(st.integers(0, 99)))


# ---- who is due ------------------------------------------------------------------------------------------------------


@given(st.text(min_size=1), SHARES, SHARES)
def test_who_is_due_stays_due_at_any_larger_share(request_id: str, a: float, b: float) -> None:
    lower, higher = sorted((a, b))
    assert is_due(request_id, lower) <= is_due(request_id, higher)
    assert is_due(request_id, 1.0)
    assert not is_due(request_id, 0.0)


def test_as_many_are_due_as_the_share_says_and_purposes_are_independent() -> None:
    ids = [str(uuid.UUID(int=i)) for i in range(20_000)]  # as alike as ids can be
    due = [i for i in ids if is_due(i, 0.1)]
    assert len(due) / len(ids) == pytest.approx(0.1, abs=0.01)  # five standard deviations
    low = [i for i in due if fraction_of(i, "allowed") < 0.5]
    assert len(low) / len(due) == pytest.approx(0.5, abs=0.06)


# ---- the budget ------------------------------------------------------------------------------------------------------

TRAFFIC = st.lists(st.tuples(STEPS, st.integers(0, 20), st.floats(0, 2), st.floats(0, 1)), max_size=200)


@given(TRAFFIC)
def test_comparisons_never_take_more_than_their_percent(traffic: list[tuple[int, int, float, float]]) -> None:
    """Whatever is asked, planned and given up half way, and however the percentage changes."""
    budget, allowed, ran = StepBudget(), 0.0, 0
    for steps, percent, cost, share_run in traffic:
        budget.earn(steps, percent)
        allowed += steps * percent / 100
        plan = round(cost * steps)
        if budget.take(plan):
            done = int(share_run * plan)
            ran += done
            budget.give_back(plan - done)
        assert 0 <= budget.balance <= BURST_STEPS
        assert ran <= allowed + 1e-6


@given(st.lists(st.floats(0, WORST_COST), min_size=1), st.integers(0, 20))
def test_the_share_meets_the_budget_at_the_mean_cost(costs: list[float], percent: int) -> None:
    cost = MeanCost()
    for value in costs:
        cost.add(value)
    assert 0 <= cost.mean <= WORST_COST
    assert cost.share(percent) * cost.mean <= HEADROOM * percent / 100 + 1e-12


def test_the_mean_cost_follows_the_traffic() -> None:
    cost = MeanCost()
    for _ in range(1000):
        cost.add(0.5)
    assert cost.mean == pytest.approx(0.5, abs=0.01)
    assert cost.share(2) == pytest.approx(HEADROOM * 0.02 / 0.5, rel=0.02)


@pytest.mark.parametrize("percent", [1, 2, 20])
@pytest.mark.parametrize("cost", [0.8, 1.8])
def test_nearly_the_whole_budget_is_used(percent: int, cost: float) -> None:
    """Long traffic of one kind: what is taken comes to the percentage less the headroom."""
    budget, mean, asked, taken, steps = StepBudget(), MeanCost(), 0, 0, 50
    for number in range(100_000):
        is_chosen = is_due(f"request-{number}", mean.share(percent)) and budget.covers(WORST_COST * steps)
        asked += steps
        budget.earn(steps, percent)
        if is_chosen:
            mean.add(cost)
            taken += int(cost * steps) * budget.take(int(cost * steps))
    assert HEADROOM * 0.9 * percent / 100 <= taken / asked <= percent / 100


# ---- what is tried ---------------------------------------------------------------------------------------------------


@given(tables(), st.floats(-1, 1), STEPS, st.integers(0, 100), st.booleans())
def test_what_is_tried_is_the_next_skip_or_the_allowed_one(
    levels: Levels, similarity: float, steps: int, cap: int, allowed_too: bool
) -> None:
    percent = percent_to_try(levels, similarity, steps, cap=cap, allowed_too=allowed_too)
    allowed = min(levels.skip_at(similarity), cap)
    allowed_k = skip_to_k(allowed, steps)
    between = [v for v in levels.table if v.skip_percent > allowed and allowed_k < skip_to_k(v.skip_percent, steps)]
    if percent is None:
        assert not (between and between[0].skip_percent <= cap and similarity >= between[0].similarity - REACH) or (
            allowed_too and allowed_k
        )
        return
    assert percent in [v.skip_percent for v in levels.table]
    assert percent <= cap
    k = skip_to_k(percent, steps)
    assert k >= 1
    if allowed_too and allowed_k:
        assert k == allowed_k
    else:
        assert percent == between[0].skip_percent
        assert k > allowed_k


@pytest.mark.parametrize(
    ("similarity", "steps", "percent"),
    [
        (0.5, 8, None),  # 25% is 0.2 away
        (0.56, 8, 25),
        (0.24, 8, None),
        (0.26, 8, 13),
        (0.85, 8, 38),
        (0.95, 8, None),  # nothing is looser
        (0.3, 5, None),  # 13% of 5 is no step, and 25% is too far away
        (0.85, 5, None),  # 38% of 5 is the one step that 25% allows already
        (0.6, 5, 25),
    ],
)
def test_the_next_skip_of_the_table_is_tried_near_its_threshold(
    similarity: float, steps: int, percent: int | None
) -> None:
    assert percent_to_try(LEVELS, similarity, steps, cap=100, allowed_too=False) == percent


@given(tables(), st.integers(0, 100), STEPS)
def test_a_hit_is_evidence_for_the_level_that_granted_it(levels: Levels, granted: int, steps: int) -> None:
    table = [v.skip_percent for v in levels.table]
    k = skip_to_k(granted, steps)
    percent = granted_percent(levels, k, steps, granted)
    if granted in table:
        assert percent == granted
    if percent is not None:
        assert percent in table
        assert skip_to_k(percent, steps) == k


def test_a_limit_between_two_levels_is_no_evidence() -> None:
    assert granted_percent(LEVELS, skip_to_k(20, 50), 50, 20) is None
    assert granted_percent(LEVELS, skip_to_k(20, 8), 8, 20) == 13  # the same step


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_moments_are_those_of_clipped_qualities(cached: float, uncached: float) -> None:
    c, u = max(cached, 0), max(uncached, 0)
    found = moments(cached, uncached)
    assert tuple(found) == MOMENTS
    assert list(found.values()) == pytest.approx([c, u, c * c, u * u, c * u])
