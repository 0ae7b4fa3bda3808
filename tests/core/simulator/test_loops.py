"""Simulated time: pods and their queues, the scalers that ours is compared with, what arrives, and the shared cache."""

from __future__ import annotations

import csv
import io
import itertools
import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcache_core.cache.policies import LCBFU
from diffcache_core.cache.resume import Level, Levels
from diffcache_core.scaling import ScalingBounds
from diffcache_core.simulator.cache import Neighbour
from diffcache_core.simulator.loops.cache import CachedWork, CacheSettings, QualityCurve, percentile
from diffcache_core.simulator.loops.pods import LOOK_SECONDS, Device, Seen, simulate_pods, simulate_recorded
from diffcache_core.simulator.loops.scalers import FixedScaler, RequestScaler, UtilisationScaler
from diffcache_core.simulator.loops.simulation import EQUAL, Setting, compare
from diffcache_core.simulator.loops.stream import (
    DEFAULT_STEPS,
    PERCENTILES,
    SIMILARITIES,
    Arrivals,
    PromptLog,
    StreamError,
    logged_stream,
    read_arrivals,
    read_prompts,
    synthetic_arrivals,
    synthetic_stream,
)
from diffcache_core.simulator.replay import ReplayOptions, ReplayRequest, replay
from diffcache_core.tuning.tuner import Goals, Tuning

ALONE = Device(seconds_per_step=1.0, batch=1, batch_gain=1.0, start_up_seconds=30.0)
BOUNDS = ScalingBounds(min_replicas=1, max_replicas=10, target_backlog_seconds=60, stabilization_seconds=300)


@dataclass
class Script:
    """Scales to what is written, look by look, and then stays."""

    counts: list[int]
    seen: list[Seen] = field(default_factory=list)

    def __call__(self, current: int, seen: Seen) -> int:
        self.seen.append(seen)
        return self.counts[min(len(self.seen), len(self.counts)) - 1]


# ---- pods ----------------------------------------------------------------------------------------------------------


def test_one_pod_answers_in_turn() -> None:
    done = simulate_recorded([0, 1, 20], [4, 4, 4], FixedScaler(1), ALONE, replicas=1, end=30)
    assert done.seconds == pytest.approx((4, 7, 4))
    assert done.pod_seconds == pytest.approx(done.end)


def test_a_batch_shares_the_device() -> None:
    """Two at once take three halves of the time of one: a third more throughput."""
    device = replace(ALONE, batch=2, batch_gain=4 / 3)
    assert (device.call_seconds(1), device.call_seconds(2)) == pytest.approx((1.0, 1.5))
    done = simulate_recorded([0, 0, 0], [4, 4, 4], FixedScaler(1), device, replicas=1, end=0)
    assert done.seconds == pytest.approx((6, 6, 10))


def test_what_the_cache_answers_takes_no_time() -> None:
    assert simulate_recorded([0, 0], [4, 0], FixedScaler(1), ALONE, replicas=1, end=0).seconds == pytest.approx((4, 0))


def test_a_new_pod_serves_after_its_start_up_and_is_paid_for_from_the_start() -> None:
    script = Script([2])
    done = simulate_recorded([0, 40, 50], [100, 10, 10], script, ALONE, replicas=1, end=0)
    # Asked for at 15, ready at 45: the request of 40 still queues behind the first, that of 50 does not.
    assert done.seconds == pytest.approx((100, 70, 10))
    assert done.pod_seconds == pytest.approx(done.end + done.end - LOOK_SECONDS)
    assert [seen.ready for seen in script.seen[:4]] == [1, 1, 2, 2]


def test_a_pod_that_goes_finishes_what_it_runs_and_hands_over_its_queue() -> None:
    done = simulate_recorded([0, 0, 1, 1], [40, 40, 5, 5], Script([1]), ALONE, replicas=2, end=0)
    # At 15 the second pod goes, to 40: its queued request goes behind the other one of the first pod.
    assert sorted(done.seconds) == pytest.approx([40, 40, 44, 49])
    assert done.pod_seconds == pytest.approx(done.end + 40)


def test_what_a_look_shows() -> None:
    script = Script([1])
    simulate_recorded([0, 5], [10, 20], script, ALONE, replicas=1, end=60)
    first, second = script.seen[:2]
    assert (first.pending_steps, first.requests, first.busy) == pytest.approx((15, 1, 1.0))
    assert first.seconds_per_step == pytest.approx(1.0)
    assert (second.pending_steps, second.busy) == pytest.approx((0, 1.0))


@given(
    gaps=st.lists(st.floats(0, 60), min_size=1, max_size=30),
    steps=st.integers(1, 60),
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=20),
    batch=st.integers(1, 4),
)
@settings(max_examples=60)
def test_every_request_is_answered_however_pods_come_and_go(
    gaps: list[float], steps: int, counts: list[int], batch: int
) -> None:
    arrivals = list(itertools.accumulate(gaps))
    device = replace(ALONE, batch=batch, batch_gain=1 + (batch - 1) / 4)
    script = Script(counts)
    done = simulate_recorded(
        arrivals, [steps] * len(arrivals), script, device, replicas=1, end=arrivals[-1] + steps * len(arrivals) + 60
    )
    assert min(done.seconds) >= steps - 1e-6
    device_seconds = sum(
        seen.busy * (seen.at - before)
        for before, seen in zip([arrivals[0], *(s.at for s in script.seen)], script.seen, strict=False)
    )
    everything = steps * len(arrivals)
    assert everything / device.batch_gain - 1e-3 <= device_seconds <= everything + 1e-3
    assert done.pod_seconds >= device_seconds - 1e-3


# ---- scalers -------------------------------------------------------------------------------------------------------


def seen(at: float = 0, *, busy: float = 0, requests: int = 0) -> Seen:
    return Seen(at, ready=2, pending_steps=0, seconds_per_step=1, busy=busy, requests=requests)


def test_the_controls_follow_the_pod_autoscalers_rule() -> None:
    assert UtilisationScaler(BOUNDS, 0.5)(2, seen(busy=2.0)) == 4
    assert UtilisationScaler(BOUNDS, 0.5)(2, seen(busy=1.05)) == 2  # within the tolerance
    assert RequestScaler(BOUNDS, 3)(2, seen(requests=13)) == 5
    assert RequestScaler(BOUNDS, 1)(2, seen(requests=100)) == 6  # four more at once
    falling = RequestScaler(BOUNDS, 1)
    assert falling(5, seen(0, requests=5)) == 5
    assert [falling(5, seen(at)) for at in (15, 285, 300, 315)] == [5, 5, 5, 1]


# ---- what arrives --------------------------------------------------------------------------------------------------


def table(*rows: tuple[object, ...]) -> io.StringIO:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    text.seek(0)
    return text


def test_arrivals_are_read_sorted_with_their_steps() -> None:
    came = read_arrivals(
        table(("gmt_create", "num_inference_steps"), ("2024-11-15 16:57:50", "40.0"), ("2024-11-15 16:57:20", "")), "f"
    )
    assert came.times[1] - came.times[0] == 30
    assert came.steps == (DEFAULT_STEPS, 40)
    assert read_arrivals(table(("time",), (5,), (7.5,)), "f").times == (5, 7.5)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("when",), (1,)], "needs a column called time or timestamp or gmt_create in its first line, which has when"),
        ([], "which has nothing"),
        ([("time",)], "holds no requests"),
        ([("time",), (1,), ("soon",)], "f, line 3: time is 'soon'"),
        ([("time",), ("nan",)], "f, line 2: time is 'nan'"),
    ],
)
def test_arrivals_that_cannot_be_read(rows: list[tuple[object, ...]], words: str) -> None:
    with pytest.raises(StreamError, match="f") as caught:
        read_arrivals(table(*rows), "f")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("prompt",), ("a",)], "needs a column called similarity or Scores"),
        ([("prompt", "similarity"), ("a", "high")], "line 2: similarity is 'high'"),
        ([("prompt", "similarity"), ("a", "3")], "must be a cosine"),
        ([("prompt", "similarity"), ("a", "0.5")], "fewer than two prompts"),
    ],
)
def test_prompts_that_cannot_be_read(rows: list[tuple[object, ...]], words: str) -> None:
    with pytest.raises(StreamError) as caught:
        read_prompts(table(*rows), "f")
    assert words in str(caught.value)


def test_days_are_laid_over_one_another() -> None:
    day = 86400
    came = Arrivals((0, 10, day + 5, 2 * day + 7), (1, 2, 3, 4))
    assert came.folded(1) == Arrivals((0, 5, 7, 10), (1, 3, 4, 2))
    assert came.folded(2) == Arrivals((0, 7, 10, day + 5), (1, 4, 2, 3))


def test_the_made_up_stream_is_as_similar_as_the_log_it_stands_for() -> None:
    stream = synthetic_stream(synthetic_arrivals(2, 1500, seed=3), 0.3, seed=3)
    assert len(stream.requests) == pytest.approx(3000, rel=0.1)
    best = [similarities[0] if similarities else 0.0 for _, similarities in stream.near[len(stream.near) // 20 :]]
    for percent, wanted in list(zip(PERCENTILES, SIMILARITIES, strict=True))[
        1:-2
    ]:  # the last hold repeats, which are exactly alike
        assert np.quantile(best, percent / 100) == pytest.approx(wanted, abs=0.02)
    for i, (positions, similarities) in enumerate(stream.near):
        assert all(position < i for position in positions)
        assert list(similarities) == sorted(similarities, reverse=True)


def test_a_logs_prompts_are_near_when_their_letters_are() -> None:
    prompts = [
        "a red bicycle by the sea",
        "portrait of an old king",
        "a red bicycle by the sea!",
        "A red  bicycle by the sea",
    ]
    log = PromptLog(tuple(prompts), (0.5, 0.6, 0.9, 1.0))
    stream = logged_stream(Arrivals((0, 1, 2, 3), (30,) * 4), log, 0.0, seed=0)
    assert list(stream.near[2][0]) == [0, 1]
    assert stream.near[3][0][0] == 0
    assert stream.near[3][1][0] == pytest.approx(1.0)  # case and blanks are no letters


# ---- the shared cache ----------------------------------------------------------------------------------------------

START = Tuning((Level(20, 0.65), Level(40, 0.9)), 2**20)
SETTINGS = CacheSettings(START, reseed_skip_percent=40, state_bytes=4096, quality=QualityCurve())
GOALS = Goals(0.9, None, 2**18, 2**22, 0.02, 0.4)


def test_simulated_time_saves_what_the_replay_saves() -> None:
    """With pods so fast that each result is kept before the next request, it is the replay."""
    stream = synthetic_stream(synthetic_arrivals(1, 600, seed=1), 0.5, seed=1)
    work = CachedWork(stream, SETTINGS, seed=1)
    instant = Device(1e-9, 1, 1.0, 0.0)
    simulate_pods(stream.times, work, FixedScaler(1), instant, replicas=1, end=0)
    replayed = replay(
        [
            ReplayRequest(str(r.prompt), r.seed, r.steps, [Neighbour(p, s) for p, s in zip(*near, strict=True)])
            for r, near in zip(stream.requests, stream.near, strict=True)
        ],
        ReplayOptions(LCBFU(), Levels(START.levels, 40), entries=START.capacity_bytes // 4096),
    )
    assert replayed.skipped > 0
    assert (work.steps, work.skipped) == (replayed.steps, replayed.skipped)
    assert work.steps_saved_ratio == replayed.steps_saved_ratio


def test_the_truth_about_quality() -> None:
    curve = QualityCurve()
    assert curve.ratio(50, 1.0) == 1.0
    for skip in (20, 30, 50):
        at = curve.threshold(skip, 0.95)
        assert curve.ratio(skip, at) == pytest.approx(0.95)
    assert curve.threshold(1, 0.5) == 0.0


def test_comparisons_keep_their_budget_and_find_the_truth() -> None:
    stream = synthetic_stream(synthetic_arrivals(1, 1500, seed=2), 0.4, seed=2)
    cache = replace(SETTINGS, shadow_percent=10, goals=GOALS)
    ours = CachedWork(stream, cache, seed=2)
    simulate_pods(stream.times, ours, FixedScaler(1), Device(0.01, 1, 1.0, 0.0), replicas=1, end=0)
    assert 0.03 * ours.steps < ours.shadow_steps <= 0.1 * ours.steps
    sums = [(skip, edge, s) for b in ours.batches for (skip, edge), s in b.pairs.items()]
    assert sum(s.n for _, _, s in sums) > 50
    for skip in (20, 40):
        mine = [(edge, s) for other, edge, s in sums if other == skip]
        truth = sum(s.n * ours.settings.quality.ratio(skip, edge + 0.025) for edge, s in mine)
        found = sum(s.c for _, s in mine) / sum(s.u for _, s in mine)
        assert found == pytest.approx(truth / sum(s.n for _, s in mine), abs=0.03)


def test_percentiles_are_ranks() -> None:
    assert percentile([], 95) is None
    assert percentile([1.0], 95) == 1.0
    assert percentile([float(i) for i in range(1, 101)], 95) == 95


def test_every_control_is_held_against_the_same_p95() -> None:
    stream = synthetic_stream(synthetic_arrivals(0.5, 400, seed=4), 0.4, seed=4)
    cache = replace(SETTINGS, shadow_percent=10, goals=GOALS)
    told: list[str] = []
    device = Device(2.0, 2, 1.2, 60.0)
    compared = compare(Setting(stream, cache, BOUNDS, device, seed=4), told.append)
    ours, *controls = compared.rows
    assert told == ["ours", *(row.name for row in controls)]
    assert ours.steps_saved_ratio > 0
    for row in controls:
        reached = row.at_equal_p95
        assert reached.p95_seconds <= EQUAL * ours.cost.p95_seconds or row.name.endswith("constant pods")
        assert math.isfinite(reached.device_hours)
        if row.ours_there is not None:
            assert row.ours_there.p95_seconds <= EQUAL * reached.p95_seconds or reached.p95_seconds < 60
        assert (row.steps_saved_ratio == 0) == row.name.startswith("no cache")
    by_name = {row.name: row for row in controls}
    assert (
        by_name["no cache, backlog"].at_equal_p95.device_hours
        > by_name["first levels, backlog"].at_equal_p95.device_hours
    )
    assert compared.rows == compare(Setting(stream, cache, BOUNDS, device, seed=4)).rows  # nothing is left to chance
