"""What moves, by how much, and when nothing does."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcache_core.cache.resume import Level, Levels
from diffcache_core.names import SHADOW_MULTIPLES
from diffcache_core.tuning.evidence import CLOSED, EDGES
from diffcache_core.tuning.tuner import (
    COOL_DOWN,
    EVIDENCE_SECONDS,
    MIN_REQUESTS,
    Batch,
    Goals,
    PairSums,
    Tuning,
    Window,
    evidence_start,
    tune,
)
from diffcache_core.tuning.window_checks import STALE_SECONDS

NOW = 1_000_000.0
MI = 2**20
TUNING = Tuning((Level(13, 0.6), Level(25, 0.8), Level(38, 0.9)), 100 * MI)
GOALS = Goals(0.95, None, 10 * MI, 1000 * MI, 0.02, 0.5)


def pairs(ratio: float, n: float = 1000, uncached: float = 0.74, spread: float = 0.05) -> PairSums:
    """Of n pairs with this ratio of means; q_c = ratio q_u but for a noise of `spread`."""
    u, uu = n * uncached, n * (uncached**2 + 0.01)
    return PairSums(n, ratio * u, u, ratio**2 * uu + n * spread**2, uu, ratio * uu)


def window(seen: dict[tuple[int, float], PairSums] | None = None, **other: object) -> Window:
    """A quiet window: nothing to gain by another capacity."""
    quiet = Window(
        batches=(Batch(NOW - 3600, NOW - 10, seen if seen is not None else {(13, 0.6): pairs(0.955)}),),
        steps=80_000,
        steps_skipped=24_000,
        requests=10_000,
        p95_seconds=1.0,
        shadow_ssr={multiple: 0.3 + 0.02 * math.log2(multiple) for multiple in SHADOW_MULTIPLES},
        measured_ssr=0.3,
        shadow_due=1000,
        shadow_dropped=0,
        newest=NOW - 10,
    )
    return replace(quiet, **other)  # type: ignore[arg-type]  # fields by name


def similarities(tuning: Tuning) -> list[float]:
    return [level.similarity for level in tuning.levels]


def test_at_rest_nothing_moves() -> None:
    decision = tune(TUNING, window(), GOALS, now=NOW, changed_at=None)
    assert (decision.reason, decision.frozen, decision.tuning) == ("AtRest", False, TUNING)


def test_a_level_goes_down_by_one_bin_where_what_lies_below_is_proven() -> None:
    seen = {(25, 0.75): pairs(1.0), (25, 0.7): pairs(1.0)}
    decision = tune(TUNING, window(seen), GOALS, now=NOW, changed_at=None)
    assert decision.reason == "Loosened"
    assert similarities(decision.tuning) == [0.6, 0.75, 0.9]
    assert "25% from 0.8 to 0.75" in decision.message
    assert decision.inputs["25%@0.75"] == "ratio 1.000 of 1000 pairs"
    assert decision.inputs["pairs"] == "2000"


def test_too_few_pairs_prove_nothing() -> None:
    assert tune(TUNING, window({(25, 0.75): pairs(1.0, n=100)}), GOALS, now=NOW, changed_at=None).tuning == TUNING


def test_a_smaller_skip_follows_a_larger_one() -> None:
    tuning = replace(TUNING, levels=(Level(13, 0.8), Level(25, 0.8)))
    decision = tune(tuning, window({(25, 0.75): pairs(1.0)}), GOALS, now=NOW, changed_at=None)
    assert similarities(decision.tuning) == [0.75, 0.75]


def test_a_bin_without_requests_is_passed_over_towards_a_proven_one() -> None:
    decision = tune(TUNING, window({(25, 0.7): pairs(1.0)}), GOALS, now=NOW, changed_at=None)
    assert similarities(decision.tuning) == [0.6, 0.75, 0.9]


def test_a_bin_with_pairs_that_prove_nothing_is_not_passed_over() -> None:
    seen = {(25, 0.75): pairs(0.951, n=100), (25, 0.7): pairs(1.0)}
    assert tune(TUNING, window(seen), GOALS, now=NOW, changed_at=None).tuning == TUNING


def test_a_level_goes_up_at_once_beyond_all_that_is_bad() -> None:
    seen = {(13, 0.6): pairs(0.9), (13, 0.75): pairs(0.9), (13, 0.85): pairs(1.0)}
    decision = tune(TUNING, window(seen), GOALS, now=NOW, changed_at=NOW - 1)
    assert decision.reason == "Tightened"
    assert similarities(decision.tuning) == [0.8, 0.8, 0.9]


def test_a_level_that_is_bad_everywhere_is_closed_and_those_above_it() -> None:
    decision = tune(TUNING, window({(25, 0.95): pairs(0.8)}), GOALS, now=NOW, changed_at=None)
    assert similarities(decision.tuning) == [0.6, CLOSED, CLOSED]
    assert Levels(decision.tuning.levels).skip_at(1.0) == 13
    again = tune(decision.tuning, window({(25, 0.95): pairs(0.8)}), GOALS, now=NOW, changed_at=None)
    assert again.tuning == decision.tuning


def test_a_closed_level_comes_back_when_it_is_proven() -> None:
    tuning = replace(TUNING, levels=(Level(13, CLOSED),))
    decision = tune(tuning, window({(13, 0.95): pairs(1.0)}), GOALS, now=NOW, changed_at=None)
    assert similarities(decision.tuning) == [0.95]


def test_a_threshold_between_two_edges_goes_to_the_next_edge() -> None:
    tuning = replace(TUNING, levels=(Level(13, 0.67),))
    assert similarities(tune(tuning, window({(13, 0.65): pairs(1.0)}), GOALS, now=NOW, changed_at=None).tuning) == [
        0.65
    ]
    assert similarities(tune(tuning, window({(13, 0.65): pairs(0.9)}), GOALS, now=NOW, changed_at=None).tuning) == [0.7]


def test_no_level_asks_for_less_than_the_lowest_similarity() -> None:
    tuning = replace(TUNING, levels=(Level(13, 0.55),))
    seen = {(13, 0.5): pairs(1.0), (13, 0.45): pairs(1.0)}
    first = tune(tuning, window(seen), replace(GOALS, min_similarity=0.52), now=NOW, changed_at=None)
    assert similarities(first.tuning) == [0.52]
    assert tune(first.tuning, window(seen), replace(GOALS, min_similarity=0.52), now=NOW, changed_at=None).tuning == (
        first.tuning
    )
    raised = tune(first.tuning, window(seen), replace(GOALS, min_similarity=0.7), now=NOW, changed_at=None)
    assert (raised.reason, similarities(raised.tuning)) == ("Tightened", [0.7])


@pytest.mark.parametrize(
    ("p95", "reason", "expected"),
    [
        (1.2, "Loosened", [0.6, 0.75, 0.9]),
        (0.9, "AtRest", [0.6, 0.8, 0.9]),
        (0.5, "Tightened", [0.65, 0.8, 0.9]),
        (None, "AtRest", [0.6, 0.8, 0.9]),
    ],
)
def test_an_objective_decides_which_way(p95: float | None, reason: str, expected: list[float]) -> None:
    seen = {(25, 0.75): pairs(1.0), (13, 0.6): pairs(0.96), (25, 0.8): pairs(1.0), (38, 0.9): pairs(0.98)}
    aim = replace(GOALS, p95_seconds=1.0)
    decision = tune(TUNING, window(seen, p95_seconds=p95), aim, now=NOW, changed_at=None)
    assert (decision.reason, similarities(decision.tuning)) == (reason, expected)


def test_capacity_grows_and_shrinks_by_a_factor_of_two_at_most() -> None:
    steep = window(shadow_ssr={m: 0.3 + 0.1 * math.log2(m) for m in SHADOW_MULTIPLES})
    flat = window(shadow_ssr=dict.fromkeys(SHADOW_MULTIPLES, 0.3))
    grown, shrunk = (tune(TUNING, seen, GOALS, now=NOW, changed_at=None) for seen in (steep, flat))
    assert (grown.reason, grown.tuning.capacity_bytes) == ("Grown", 200 * MI)
    assert (shrunk.reason, shrunk.tuning.capacity_bytes) == ("Shrunk", 50 * MI)
    assert grown.tuning.levels == shrunk.tuning.levels == TUNING.levels


def test_capacity_outside_its_bounds_comes_back_and_equal_bounds_leave_it() -> None:
    bounds = replace(GOALS, capacity_min=150 * MI)
    assert tune(TUNING, window(), bounds, now=NOW, changed_at=None).tuning.capacity_bytes == 150 * MI
    fixed = replace(GOALS, capacity_min=50 * MI, capacity_max=50 * MI)
    assert tune(TUNING, window(), fixed, now=NOW, changed_at=None).tuning == TUNING


GROWING = {m: 0.3 + 0.1 * math.log2(m) for m in SHADOW_MULTIPLES}
LOOSENING = {(25, 0.75): pairs(1.0)}
NAN = math.nan


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"newest": None}, "NoData"),
        ({"newest": NOW - STALE_SECONDS - 1}, "StaleData"),
        ({"newest": NOW + 3600}, "ClockJump"),
        ({"batches": (Batch(NOW, NOW + 3600, {}),)}, "ClockJump"),
        ({"batches": (Batch(NOW - 50, NOW - 60, {}),)}, "BadData"),
        ({"batches": (Batch(NOW - 60, NOW, {}), Batch(NOW - 50, NOW, {}))}, "BadData"),
        ({"batches": (Batch(NOW - 60, NOW, {(25, 0.77): pairs(1.0)}),)}, "BadData"),
        ({"batches": (Batch(NOW - 60, NOW, {(25, NAN): pairs(1.0)}),)}, "BadData"),
        ({"batches": (Batch(NOW - 60, NOW, {(25, 0.75): replace(pairs(1.0), cu=NAN)}),)}, "BadData"),
        ({"batches": (Batch(NOW - 60, NOW, {(25, 0.75): replace(pairs(1.0), c=-50.0)}),)}, "BadData"),
        ({"batches": (Batch(NOW - 60, NOW, {(25, 0.75): replace(pairs(1.0), u=2000.0)}),)}, "BadData"),
        ({"batches": (Batch(NOW - 60, NOW, {(25, 0.75): replace(pairs(1.0), n=-1.0)}),)}, "BadData"),
        ({"batches": (Batch(NOW - 60, NOW, {(25, 0.75): replace(pairs(1.0), n=math.inf)}),)}, "BadData"),
        ({"p95_seconds": NAN}, "BadData"),
        ({"p95_seconds": -1.0}, "BadData"),
        ({"steps": -1.0}, "BadData"),
        ({"steps_skipped": 1e9}, "BadData"),
        ({"requests": math.inf}, "BadData"),
        ({"measured_ssr": NAN}, "BadData"),
        ({"shadow_ssr": {1.0: 1.5}}, "BadData"),
        ({"shadow_ssr": {NAN: 0.5, 1.0: 0.3}}, "BadData"),
        ({"shadow_ssr": {1.0: 0.3, 1.0 + 1e-15: 0.3}}, "BadData"),
        ({"shadow_due": 1000, "shadow_dropped": 101}, "ShadowsDropped"),
        ({"shadow_due": 10, "shadow_dropped": 11}, "BadData"),
    ],
)
def test_measurements_that_cannot_be_believed_freeze_all(other: dict[str, object], reason: str) -> None:
    seen = window(LOOSENING, shadow_ssr=GROWING)
    assert not tune(TUNING, seen, GOALS, now=NOW, changed_at=None).frozen
    decision = tune(TUNING, replace(seen, **other), GOALS, now=NOW, changed_at=None)  # type: ignore[arg-type]
    assert (decision.reason, decision.frozen, decision.tuning) == (reason, True, TUNING)
    assert decision.message


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"measured_ssr": 0.32}, "ShadowCacheOff"),
        ({"measured_ssr": None}, "NoData"),
        ({"shadow_ssr": {2.0: 0.4, 4.0: 0.5}}, "NoData"),
        ({"requests": MIN_REQUESTS - 1}, "TooFewSamples"),
    ],
)
def test_capacity_freezes_alone(other: dict[str, object], reason: str) -> None:
    growing = window(**{"shadow_ssr": GROWING} | other)  # type: ignore[arg-type]
    decision = tune(TUNING, growing, GOALS, now=NOW, changed_at=None)
    assert (decision.reason, decision.frozen, decision.tuning) == (reason, True, TUNING)
    loosening = replace(growing, batches=window(LOOSENING).batches)
    assert tune(TUNING, loosening, GOALS, now=NOW, changed_at=None).reason == "Loosened"


def test_after_a_change_there_is_rest() -> None:
    fresh = tune(TUNING, window(LOOSENING), GOALS, now=NOW, changed_at=NOW - COOL_DOWN + 1)
    assert (fresh.reason, fresh.frozen, fresh.tuning) == ("CoolingDown", True, TUNING)
    assert tune(TUNING, window(LOOSENING), GOALS, now=NOW, changed_at=NOW - COOL_DOWN).reason == "Loosened"
    ahead = tune(TUNING, window(LOOSENING), GOALS, now=NOW, changed_at=NOW + 3600)
    assert (ahead.reason, ahead.frozen) == ("ClockJump", True)


def test_without_comparisons_levels_say_so() -> None:
    decision = tune(TUNING, window({}), GOALS, now=NOW, changed_at=None)
    assert (decision.reason, decision.frozen) == ("TooFewSamples", True)


def test_a_scrape_between_two_counters_is_no_bad_data() -> None:
    torn = {(13, 0.6): PairSums(0, 0.74, 0.74, 0.55, 0, 0)}
    assert tune(TUNING, window(torn), GOALS, now=NOW, changed_at=None).reason != "BadData"


def test_evidence_begins_by_whole_spans() -> None:
    starts = {evidence_start(100 * EVIDENCE_SECONDS + hours * 3600.0, since=0.0) for hours in range(7 * 24)}
    assert starts == {99 * EVIDENCE_SECONDS}
    assert evidence_start(NOW, since=NOW - 60) == NOW - 60


ANY = st.floats() | st.sampled_from([0.0, -1.0, 1.0, 0.3, 1e308])
SOME_SUMS = st.builds(PairSums, ANY, ANY, ANY, ANY, ANY, ANY) | st.floats(0.5, 1.2).map(pairs)
SOME_BINS = st.tuples(st.integers(-5, 120), ANY) | st.tuples(st.sampled_from([13, 25, 38]), st.sampled_from(EDGES[:-1]))
SOME_BATCHES = st.builds(Batch, ANY, ANY, st.dictionaries(SOME_BINS, SOME_SUMS, max_size=4)) | st.dictionaries(
    SOME_BINS, SOME_SUMS, max_size=4
).map(lambda seen: Batch(NOW - 3600, NOW - 10, seen))
SOME_WINDOWS = st.builds(
    Window,
    batches=st.lists(SOME_BATCHES, max_size=3),
    steps=ANY,
    steps_skipped=ANY,
    requests=ANY,
    p95_seconds=st.none() | ANY,
    shadow_ssr=st.dictionaries(ANY | st.sampled_from(SHADOW_MULTIPLES), ANY, max_size=6),
    measured_ssr=st.none() | ANY,
    shadow_due=ANY,
    shadow_dropped=ANY,
    newest=st.none() | ANY | st.just(NOW - 10),
)


@given(SOME_WINDOWS, st.none() | ANY, ANY | st.just(NOW))
def test_garbage_never_raises_and_frozen_moves_nothing(seen: Window, changed_at: float | None, now: float) -> None:
    decision = tune(TUNING, seen, GOALS, now=now, changed_at=changed_at)
    assert decision.tuning == TUNING or not decision.frozen
    assert decision == tune(TUNING, seen, GOALS, now=now, changed_at=changed_at)


@given(
    st.sampled_from(["steps", "steps_skipped", "requests", "shadow_due", "shadow_dropped", "newest"]),
    st.sampled_from([math.nan, math.inf, -math.inf, -1.0, -1e308, 1e308]),
)
def test_one_impossible_figure_is_enough_to_freeze(name: str, value: float) -> None:
    seen = window(LOOSENING, shadow_ssr=GROWING, **{name: value})
    decision = tune(TUNING, seen, GOALS, now=NOW, changed_at=None)
    assert decision.frozen
    assert decision.tuning == TUNING


@given(
    st.sampled_from([(13, 0.55), (25, 0.75), (38, 0.85), (38, 0.95)]),
    st.sampled_from(["n", "c", "u", "cc", "uu", "cu"]),
    st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 1e308]),
)
def test_one_impossible_sum_is_enough_to_freeze(key: tuple[int, float], name: str, value: float) -> None:
    seen = window({**LOOSENING, key: replace(pairs(1.0), **{name: value})}, shadow_ssr=GROWING)
    decision = tune(TUNING, seen, GOALS, now=NOW, changed_at=None)
    assert decision.frozen
    assert decision.tuning == TUNING


@settings(max_examples=300)
@given(
    st.lists(st.floats(0.3, 1.0), min_size=1, max_size=4),
    st.dictionaries(
        st.tuples(st.sampled_from([13, 25, 38, 50]), st.sampled_from(EDGES[:-1])),
        st.builds(pairs, st.floats(0.5, 1.2), st.integers(1, 5000)),
        max_size=12,
    ),
    st.lists(st.floats(0, 1), min_size=6, max_size=6),
    st.floats(0.3, 1.0),
    st.none() | st.floats(0.1, 5.0),
    st.tuples(st.integers(1, 10**12), st.integers(1, 10**12)).map(sorted),
    st.integers(1, 10**12),
)
def test_bounds_and_steps_are_kept_whatever_is_measured(
    thresholds: list[float],
    seen: dict[tuple[int, float], PairSums],
    ratios: list[float],
    lowest: float,
    objective: float | None,
    bounds: list[int],
    capacity: int,
) -> None:
    levels = tuple(Level(skip, at) for skip, at in zip((13, 25, 38, 50), sorted(thresholds), strict=False))
    tuning = Tuning(levels, capacity)
    goals = Goals(0.95, objective, bounds[0], bounds[1], 0.02, lowest)
    measured = window(seen, shadow_ssr=dict(zip(SHADOW_MULTIPLES, ratios, strict=True)), measured_ssr=ratios[2])
    decision = tune(tuning, measured, goals, now=NOW, changed_at=None)
    moved = decision.tuning
    assert moved == tuning or not decision.frozen
    Levels(moved.levels)  # raises unless valid
    assert [level.skip_percent for level in moved.levels] == [level.skip_percent for level in levels]
    if moved.levels != levels:
        assert all(level.similarity >= lowest for level in moved.levels)
        assert moved.capacity_bytes == capacity
    for old, new in zip(levels, moved.levels, strict=True):
        assert (
            new.similarity >= max((at for at in EDGES if at < old.similarity), default=0.0) or old.similarity < lowest
        )
    if moved.capacity_bytes != capacity:
        assert bounds[0] <= moved.capacity_bytes <= bounds[1]
        clamped = max(bounds[0], min(bounds[1], capacity))
        # Half or twice as much at most, give or take the byte that rounding takes.
        assert clamped != capacity or 0.49 * capacity - 1 <= moved.capacity_bytes <= 2.04 * capacity + 1
