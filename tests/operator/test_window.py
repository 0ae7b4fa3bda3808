"""Raw counters become the tuner's window: resets, births, gaps and nonsense included."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcache_core.names import (
    MOMENTS,
    QUALITY_PAIRS,
    QUALITY_SUM,
    REQUEST_SECONDS,
    SHADOW_CACHE_SKIPPED,
    SHADOW_CACHE_STEPS,
    SHADOW_RUNS,
    START_TIME,
    STEPS,
    STEPS_SKIPPED,
)
from diffcache_core.tuning.tuner import PairSums
from diffcache_operator.series import Series
from diffcache_operator.tuning.window import (
    LONGEST,
    MAX_BATCHES,
    SHORTEST_STEP,
    Counters,
    Grid,
    Newest,
    Reading,
    Span,
    read,
)

GRID = Grid(1000.0, 30.0, 4)
LONG_AGO = 10.0  # when a pod began


def series(name: str, values: Sequence[float | None], pod: str = "emoji-0", **labels: str) -> Series:
    """One value a point; None where there is none."""
    points = [(GRID.start + i * GRID.step, value) for i, value in enumerate(values) if value is not None]
    return Series({"__name__": name, "pod": pod, "job": "pods", "instance": "10.0.0.1:9095"} | labels, points)


def start(*values: float | None, pod: str = "emoji-0") -> Series:
    return series(START_TIME, values or [LONG_AGO] * 5, pod)


PODS = frozenset({"emoji-0", "emoji-1", "e-1"})


def reading_of(
    comparisons: Iterable[Series] = (), figures: Iterable[Series] = (), newest: Iterable[Series] = ()
) -> Reading:
    compared, counted, latest = Counters(GRID, PODS), Counters(GRID, PODS), Newest(PODS)
    for taking, found in ((compared, comparisons), (counted, figures), (latest, newest)):
        for one in found:
            taking.add(one)
    return read(compared, counted, latest)


def steps_of(*found: Series) -> float:
    reading = reading_of(figures=found)
    assert reading.bad == ()
    return reading.window.steps


def test_everything_that_the_tuner_reads() -> None:
    def buckets(*counts: tuple[str, float]) -> list[Series]:
        name = REQUEST_SECONDS + "_bucket"
        return [series(name, [0, 0, 0, 0, count], model="m", result="miss", le=bound) for bound, count in counts]

    comparisons = [
        start(),
        series(QUALITY_PAIRS, [5, 5, 8, 8, 9], skip="20", similarity="0.80"),
        *(
            series(QUALITY_SUM, [1, 1, 1 + 3 * q, 1 + 3 * q, 1 + 4 * q], skip="20", similarity="0.80", moment=moment)
            for moment, q in (("c", 0.5), ("u", 0.6), ("cc", 0.25), ("uu", 0.36), ("cu", 0.3))
        ),
    ]
    figures = [
        start(),
        series(STEPS, [100, 110, 120, 130, 200]),
        series(STEPS_SKIPPED, [50, 50, 50, 50, 75]),
        *buckets(("1.0", 10), ("3.0", 20), ("+Inf", 20)),
        series(SHADOW_CACHE_STEPS, [0, 0, 0, 0, 100], multiple="1.0"),
        series(SHADOW_CACHE_SKIPPED, [0, 0, 0, 0, 26], multiple="1.0"),
        series(SHADOW_RUNS, [0, 0, 0, 0, 9], outcome="compared"),
        series(SHADOW_RUNS, [1, 1, 1, 1, 2], outcome="dropped"),
    ]
    newest = [Series({"pod": "emoji-0"}, [(1120.0, 1115.0)]), Series({"pod": "emoji-1"}, [(1120.0, 1119.0)])]
    reading = reading_of(comparisons, figures, newest)
    window = reading.window
    assert reading.bad == ()
    assert (window.steps, window.steps_skipped, window.measured_ssr) == (100, 25, 0.25)
    assert (window.requests, window.p95_seconds) == pytest.approx((20, 2.8))
    assert window.shadow_ssr == {1.0: 0.26}
    assert (window.shadow_due, window.shadow_dropped, window.newest) == (10, 1, 1119.0)
    assert [batch.start for batch in window.batches] == [1000, 1030, 1060, 1090]
    assert [list(batch.pairs) for batch in window.batches] == [[], [(20, 0.8)], [], [(20, 0.8)]]
    pairs = window.batches[1].pairs[20, 0.8]
    assert pairs == PairSums(3, *(pytest.approx(3 * q) for q in (0.5, 0.6, 0.25, 0.36, 0.3)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "steps"),
    [
        ([start(), series(STEPS, [100, 100, 104, 104, 109])], 9),
        # A fall is a new beginning at 0, even where nothing else tells of it.
        ([start(), series(STEPS, [100, 110, 4, 6, 6])], 16),
        # A process that began anew and has overtaken the old one's count.
        ([start(10, 10, 1050, 1050, 1050), series(STEPS, [3, 5, 50, 60, 60])], 62),
        # Not seen for a while, as when Prometheus or the pod's network was away.
        ([start(10, None, None, 10, 10), series(STEPS, [3, None, None, 10, 11])], 8),
        ([start(10, None, None, 1070, 1070), series(STEPS, [3, None, None, 10, 11])], 11),
        # A pod that began inside the window, and one that only came under watch in it.
        ([start(None, None, 1045, 1045, 1045), series(STEPS, [None, None, 7, 9, 9])], 9),
        ([start(None, None, 10, 10, 10), series(STEPS, [None, None, 7, 9, 9])], 2),
        # A series that comes into being while its pod is watched.
        ([start(), series(STEPS, [None, None, 7, 9, 9])], 9),
        # The same pod with another address; and two pods.
        ([start(), series(STEPS, [3, 4, None, None, None]), series(STEPS, [None, None, 6, 6, 7], instance="b")], 4),
        ([start(), series(STEPS, [3, 4, 4, 4, 4]), start(pod="e-1"), series(STEPS, [0, 0, 0, 0, 5], "e-1")], 6),
        ([], 0),
        ([start()], 0),
    ],
)
def test_rises(found: list[Series], steps: float) -> None:
    assert steps_of(*found) == steps


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([start(), series(STEPS, [1, math.nan, 3, 4, 5])], "is nan"),
        ([start(), series(STEPS, [1, math.inf, 3, 4, 5])], "is inf"),
        ([start(), series(STEPS, [1, -2, 3, 4, 5])], "is -2"),
        ([series(STEPS, [1, 2, 3, 4, 5])], "does not report when it began"),
        ([start(), series(STEPS, [1, 2, 3, 4, 5]), series(STEPS, [1, 2, 3, 4, 5], job="b")], "jobs b and pods"),
        ([start(), series(SHADOW_CACHE_STEPS, [1] * 5, multiple="one")], "labels"),
        ([start(), series(SHADOW_CACHE_STEPS, [1] * 5, multiple="nan")], "labels"),
    ],
)
def test_what_cannot_be_is_told(found: list[Series], words: str) -> None:
    (told,) = reading_of(figures=found).bad
    assert words in told


def test_foreign_labels_of_comparisons_are_told() -> None:
    wrong = series(QUALITY_SUM, [1] * 5, skip="20", similarity="0.80", moment="ccc")
    assert "labels" in reading_of([start(), wrong]).bad[0]


VALUES = st.one_of(st.none(), st.floats(), st.integers(-5, 10**6).map(float))
NAMES = st.sampled_from([START_TIME, STEPS, STEPS_SKIPPED, QUALITY_PAIRS, QUALITY_SUM, SHADOW_RUNS, "up", ""])
LABELS = st.dictionaries(
    st.sampled_from(["pod", "job", "skip", "similarity", "moment", "outcome", "le"]),
    st.sampled_from(["", "20", "0.80", "c", "-1", "1e400", "nan", "x"]),
)


@given(
    st.lists(
        st.builds(
            lambda name, labels, values: Series({"__name__": name} | labels, series("", values).values),
            NAMES,
            LABELS,
            st.lists(VALUES, max_size=7),
        ),
        max_size=12,
    )
)
def test_nothing_that_prometheus_says_does_harm(found: list[Series]) -> None:
    """It never raises; and what is not told as bad is a count."""
    window = reading_of(found, found, found).window
    assert all(math.isfinite(value) or math.isinf(value) for value in (window.steps, window.requests))
    assert window.steps >= 0
    assert all(sums.n > 0 for batch in window.batches for sums in batch.pairs.values())


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=5, max_size=5))
def test_what_a_pod_counted_is_what_is_read(life: list[tuple[int, bool]]) -> None:
    """Through any number of restarts, as far as points lie between: nothing is counted twice, nothing invented."""
    count, began, counted = 0.0, LONG_AGO, 0.0
    counts: list[float | None] = []
    starts: list[float | None] = []
    for index, (steps, restarts) in enumerate(life):
        if restarts and index:
            count, began = 0.0, GRID.start + index
        count += steps
        counted += steps if index else 0
        counts.append(count)
        starts.append(began)
    assert steps_of(series(START_TIME, starts), series(STEPS, counts)) == counted


@given(st.floats(0, 30 * 86400), st.floats(1.7e9, 1.9e9))
def test_a_grid_ends_now_and_lies_inside(age: float, now: float) -> None:
    grid = Grid.until(now, now - age)
    if grid is None:
        assert age < SHORTEST_STEP * 2
        return
    assert grid.end == pytest.approx(now)
    assert now - age <= grid.start + 1e-6
    assert 1 <= grid.batches <= MAX_BATCHES
    assert grid.step >= SHORTEST_STEP
    assert [grid.point(grid.start + i * grid.step) for i in (0, grid.batches)] == [0, grid.batches]
    assert grid.point(grid.start - grid.step) is None
    assert grid.point(math.nan) is None


def test_figures_are_of_this_tuning_and_comparisons_may_be_older() -> None:
    now = 1_800_000_000.0
    grids = Span(comparisons=now - 7 * 86400, figures=now - 600).grids(now)
    assert grids is not None
    assert grids[1].end == now
    assert grids[0].start == now - 7 * 86400
    assert now - grids[0].step < grids[0].end <= now
    assert now - 600 + SHORTEST_STEP <= grids[1].start <= now - 600 + 2 * SHORTEST_STEP
    assert Span(comparisons=now - 7 * 86400, figures=now - 50).grids(now) is None
    old = Span(comparisons=now - 7 * 86400, figures=now - 6 * 86400).grids(now)
    assert old is not None
    assert old[1].start >= now - LONGEST


def test_comparisons_are_grouped_the_same_way_at_every_look() -> None:
    """But for a doubling of the step, and then two old groups are one."""
    since, last = 1_800_000_000.0, None
    for minutes in range(1, 7 * 24 * 60, 37):
        grid = Grid.anchored(since + 60.0 * minutes, since)
        assert grid is not None
        assert grid.start == since
        assert grid.batches <= MAX_BATCHES
        assert last is None or grid.step in (last, 2 * last)
        last = grid.step
    assert last is not None
    assert last > SHORTEST_STEP


def test_sums_that_a_scrape_cut_off_from_their_pair_are_kept() -> None:
    labels = {"skip": "20", "similarity": "0.80"}
    comparisons = [
        start(),
        series(QUALITY_PAIRS, [0, 1, 1, 1, 1], **labels),
        *(series(QUALITY_SUM, [0, 0, 0.5, 0.5, 0.5], moment=moment, **labels) for moment in MOMENTS),
    ]
    window = reading_of(comparisons).window
    pairs = [batch.pairs[20, 0.8] for batch in window.batches if batch.pairs]
    assert [(one.n, one.c) for one in pairs] == [(1, 0), (0, 0.5)]
