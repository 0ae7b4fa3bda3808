"""How many pods: the rule, what must never move it, and whole runs against a small queue."""

from __future__ import annotations

import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcache_core.scaling import Load, Look, Scaling, ScalingBounds, pods_for_busy, scale

BOUNDS = ScalingBounds(min_replicas=1, max_replicas=20, target_backlog_seconds=10, stabilization_seconds=300)
NO_WINDOW = replace(BOUNDS, stabilization_seconds=0)
LOOK = 15.0  # seconds between two looks


def load(pending: float, ready: int, *, at: float = 1000.0, busy: float | None = 0.0) -> Load:
    return Load(at, ready, pending_steps=pending, seconds_per_step=0.5, busy=busy)


# ---- the rule ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("current", "pending", "replicas"),
    [
        (2, 100, 5),  # 50 s of work, 10 s a pod
        (2, 40, 2),  # just on target
        (2, 43, 2),  # within the tolerance
        (2, 45, 3),
        (4, 400, 8),  # 20 would be wanted: no more than twice as many at once
        (1, 400, 5),  # or four more
        (15, 10**6, 20),  # the maximum
        (20, 10**6, 20),
    ],
)
def test_more_work_than_the_target_asks_for_more_pods(current: int, pending: float, replicas: int) -> None:
    assert scale(current, load(pending, current), (), BOUNDS).replicas == replicas


def test_cheaper_steps_need_fewer_pods_for_the_same_queue() -> None:
    """This is how a warm cache, or a faster device, gives pods back."""
    dear = scale(2, load(200, 2), (), BOUNDS)
    cheap = scale(2, replace(load(200, 2), seconds_per_step=0.2), (), BOUNDS)
    assert (dear.replicas, cheap.replicas) == (6, 4)


def test_pods_that_start_are_not_asked_for_again() -> None:
    """One is ready and four start: until they are felt the queue of the one justifies no further ones."""
    first = scale(1, load(100, 1), (), BOUNDS)
    waiting = scale(first.replicas, load(400, 1, at=1015), first.wanted, BOUNDS)
    assert (first.replicas, waiting.replicas, waiting.reason) == (5, 5, "Starting")
    assert "4 pods are not ready yet" in waiting.message
    ready = scale(5, load(400, 5, at=1030), waiting.wanted, BOUNDS)
    assert ready.replicas == 10


@pytest.mark.parametrize(("busy", "pods"), [(0, 1), (0.6, 1), (0.7, 2), (1.4, 2), (1.5, 3), (8.5, 10), (30, 33)])
def test_room_beside_the_busy_share(busy: float, pods: int) -> None:
    assert pods_for_busy(busy) == pods


def test_a_fall_leaves_room_for_what_the_devices_do() -> None:
    """No backlog at all, and yet three of the eight are needed."""
    fallen = scale(8, load(0, 8, busy=1.8), (), NO_WINDOW)
    assert (fallen.replicas, fallen.reason) == (3, "Down")
    assert scale(3, load(0, 3, busy=1.8), (), NO_WINDOW).replicas == 3


def test_without_a_busy_share_nothing_falls() -> None:
    assert scale(8, load(0, 8, busy=None), (), NO_WINDOW).replicas == 8
    assert scale(8, load(10**4, 8, busy=None), (), NO_WINDOW).replicas == 16


def test_busy_devices_alone_ask_for_nothing() -> None:
    """A device works on whatever waits, be it little: only a backlog shows that it is not enough."""
    assert scale(3, load(0, 3, busy=3.0), (), NO_WINDOW).replicas == 3


# ---- the window ----------------------------------------------------------------------------------------------------


def looks(current: int, loads: list[Load], bounds: ScalingBounds = BOUNDS) -> list[Scaling]:
    answers: list[Scaling] = []
    wanted: tuple[Look, ...] = ()
    for one in loads:
        answers.append(scale(current, one, wanted, bounds))
        current, wanted = answers[-1].replicas, answers[-1].wanted
    return answers


def test_falls_only_after_a_whole_window_and_to_its_highest() -> None:
    queues = [75 if i == 5 else 0 for i in range(40)]  # once, at 75 s, four pods would have been needed
    answers = looks(8, [load(queue, 8, at=1000 + LOOK * i, busy=0.5) for i, queue in enumerate(queues)])
    assert [a.replicas for a in answers[:20]] == [8] * 20
    assert {a.reason for a in answers[:20]} == {"Stabilizing"}
    assert answers[20].replicas == 4
    assert [a.replicas for a in answers[21:26]] == [4] * 5
    assert answers[26].replicas == 1  # the window holds the look before it, too: it was true until the next one


def test_one_busy_look_is_chance_and_half_a_window_is_not() -> None:
    once = [5.0 if i == 15 else 0.4 for i in range(21)]
    lately = [4.4 if i > 10 else 0.4 for i in range(21)]
    assert looks(8, [load(0, 8, at=LOOK * i, busy=b) for i, b in enumerate(once)])[-1].replicas == 2
    assert looks(8, [load(0, 8, at=LOOK * i, busy=b) for i, b in enumerate(lately)])[-1].replicas == 6


def test_an_operator_that_restarts_waits_for_a_whole_window() -> None:
    assert scale(8, load(0, 8), (), BOUNDS).replicas == 8


def test_a_gap_without_looks_counts_as_the_look_before_it() -> None:
    answers = looks(8, [load(160, 8, at=0), load(0, 8, at=10_000), load(0, 8, at=10_015)])
    assert [a.replicas for a in answers] == [8, 8, 8]
    later = looks(8, [load(160, 8, at=0), *(load(0, 8, at=10_000 + LOOK * i) for i in range(22))])
    assert later[-1].replicas == 1


def test_the_history_stays_as_short_as_the_window() -> None:
    answers = looks(8, [load(0, 8, at=LOOK * i, busy=5) for i in range(500)])
    assert max(len(a.wanted) for a in answers) <= 300 / LOOK + 2


# ---- what moves nothing --------------------------------------------------------------------------------------------

ODD = [math.nan, math.inf, -math.inf, -1.0, 1e30]


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("name", ["pending_steps", "seconds_per_step", "busy"])
def test_figures_that_cannot_be(name: str, value: float) -> None:
    history = (Look(900.0, 1, 0.0),)
    figures = {"pending_steps": 4000.0, "seconds_per_step": 0.5, "busy": 1.0, name: value}
    answer = scale(4, Load(1000.0, 4, **figures), history, NO_WINDOW)
    assert (answer.replicas, answer.reason, answer.wanted) == (4, "BadData", history)
    assert str(value) in answer.message


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (None, "no pod answers"),
        (load(4000, 0), "no pod is ready"),
        (load(4000, -3), "no pod is ready"),
        (replace(load(4000, 4), seconds_per_step=None), "no step has been measured"),
    ],
)
def test_no_data(asked: Load | None, words: str) -> None:
    answer = scale(4, asked, (), NO_WINDOW)
    assert (answer.replicas, answer.reason) == (4, "NoData")
    assert words in answer.message


def test_pods_that_have_never_run_a_step_and_have_nothing_to_do_may_go() -> None:
    assert scale(4, replace(load(0, 4), seconds_per_step=None), (), NO_WINDOW).replicas == 1


def test_a_clock_that_goes_back_starts_the_window_again() -> None:
    before = looks(4, [load(0, 4, at=LOOK * i) for i in range(19)])
    back = scale(4, load(0, 4, at=30), before[-1].wanted, BOUNDS)
    assert (back.replicas, back.reason) == (4, "ClockJump")
    after = looks_from(4, back, [load(0, 4, at=30 + LOOK * i) for i in range(1, 22)])
    assert [a.replicas for a in after[:20]] == [4] * 20
    assert after[20].replicas == 1


def looks_from(current: int, last: Scaling, loads: list[Load]) -> list[Scaling]:
    answers = [last]
    for one in loads:
        answers.append(scale(current, one, answers[-1].wanted, BOUNDS))
        current = answers[-1].replicas
    return answers[1:]


def test_a_clock_that_jumps_ahead_shortens_no_window() -> None:
    before = looks(4, [load(80, 4, at=0)])
    assert looks_from(4, before[-1], [load(0, 4, at=10**9)])[0].replicas == 4


@pytest.mark.parametrize("asked", [None, load(math.nan, 4), load(0, 4)])
@pytest.mark.parametrize(("current", "inside"), [(0, 2), (1, 2), (9, 6), (-5, 2)])
def test_changed_bounds_hold_at_once(current: int, inside: int, asked: Load | None) -> None:
    answer = scale(current, asked, (Look(900.0, 3, 0.0),), replace(BOUNDS, min_replicas=2, max_replicas=6))
    assert (answer.replicas, answer.reason) == (inside, "OutOfBounds")
    assert answer.wanted == (Look(900.0, 3, 0.0),)


anything = st.one_of(st.floats(), st.floats(0, 1e4), st.none())


@st.composite
def bounds_(draw: st.DrawFn) -> ScalingBounds:
    least = draw(st.integers(1, 10))
    return ScalingBounds(
        least, draw(st.integers(least, 64)), draw(st.floats(1, 3600)), float(draw(st.integers(0, 3600)))
    )


@given(
    current=st.integers(-2, 80),
    loads=st.lists(
        st.none()
        | st.builds(
            Load,
            at=st.floats(),
            ready=st.integers(-1, 80),
            pending_steps=st.floats(),
            seconds_per_step=anything,
            busy=anything,
        ),
        max_size=8,
    ),
    bounds=bounds_(),
)
def test_whatever_comes_in_the_count_stays_inside_and_rises_no_faster_than_allowed(
    current: int, loads: list[Load | None], bounds: ScalingBounds
) -> None:
    wanted: tuple[Look, ...] = ()
    for one in loads:
        answer = scale(current, one, wanted, bounds)
        assert max(1, bounds.min_replicas) <= answer.replicas <= bounds.max_replicas
        assert answer.message
        if current >= bounds.min_replicas:
            assert answer.replicas <= max(2 * current, current + 4)
        assert all(math.isfinite(at) for at, _, _ in answer.wanted)
        assert [at for at, _, _ in answer.wanted] == sorted(at for at, _, _ in answer.wanted)
        current, wanted = answer.replicas, answer.wanted


@given(
    current=st.integers(1, 20),
    pending=st.floats(0, 1e6),
    more=st.floats(0, 1e6),
    busy=st.floats(0, 1) | st.none(),
)
def test_more_work_never_means_fewer_pods(current: int, pending: float, more: float, busy: float | None) -> None:
    busy = None if busy is None else busy * current
    less_work = scale(current, load(pending, current, busy=busy), (), NO_WINDOW)
    more_work = scale(current, load(pending + more, current, busy=busy), (), NO_WINDOW)
    assert less_work.replicas <= more_work.replicas


@given(st.floats(0, 60), st.integers(1, 64))
def test_a_fall_never_asks_for_the_next_rise(busy: float, current: int) -> None:
    """At the smaller count the devices are less than fully busy, so no queue that lasts can build up."""
    fallen = scale(current, load(0, current, busy=min(busy, current)), (), replace(NO_WINDOW, max_replicas=64))
    if fallen.replicas < current:
        assert min(busy, current) < fallen.replicas


# ---- whole runs ----------------------------------------------------------------------------------------------------


@dataclass
class Queue:
    """Pods that take requests from one queue, one at a time each. Times in seconds, work in steps of one second."""

    start_up: float
    pods: list[float] = field(default_factory=lambda: [0.0])  # when each is ready
    waiting: deque[tuple[float, float]] = field(default_factory=deque)  # arrival, steps
    running: list[tuple[float, float] | None] = field(default_factory=lambda: [None])  # arrival, end; by pod
    busy: float = 0.0
    waits: list[float] = field(default_factory=list)

    def resize(self, replicas: int, now: float) -> None:
        while len(self.pods) < replicas:
            self.pods.append(now + self.start_up)
            self.running.append(None)
        while len(self.pods) > replicas:  # the newest goes; what it runs is done again
            self.pods.pop()
            unfinished = self.running.pop()
            if unfinished is not None:
                self.waiting.appendleft((unfinished[0], unfinished[1] - now))

    def run(self, now: float, until: float) -> None:
        """All pods from `now` to `until`; starts are rounded to it, which a long run does not feel."""
        for i, ready in enumerate(self.pods):
            at = max(now, ready)
            while at < until:
                one = self.running[i]
                if one is None:
                    if not self.waiting:
                        break
                    arrival, steps = self.waiting.popleft()
                    self.waits.append(at - arrival)
                    self.running[i] = one = (arrival, at + steps)
                end = min(one[1], until)
                self.busy += end - at
                at = end
                if one[1] <= until:
                    self.running[i] = None

    def load(self, now: float, busy: float) -> Load:
        left = sum(one[1] - now for one in self.running if one is not None)
        ready = [i for i, at in enumerate(self.pods) if at <= now]
        return Load(now, len(ready), sum(steps for _, steps in self.waiting) + left, 1.0, busy)


@dataclass(frozen=True)
class Run:
    replicas: list[int]  # at each look
    waits: list[float]

    def changes(self, since: float) -> int:
        """How often the count moved after so many seconds."""
        counts = self.replicas[int(since / LOOK) :]
        return sum(one != other for one, other in itertools.pairwise(counts))


def simulate(
    rate: Callable[[float], float],
    *,
    seconds: float = 4 * 3600,
    steps: float = 4.0,
    poisson: int | None = None,
    start_up: float = 60.0,
    bounds: ScalingBounds = BOUNDS,
) -> Run:
    """`rate`: requests per second at a time, evenly spaced or, with a seed, Poisson."""
    chance = random.Random(poisson)
    queue, current = Queue(start_up), 1
    wanted: tuple[Look, ...] = ()
    replicas: list[int] = []
    now, arrival = 0.0, 0.0
    while now < seconds:
        busy_before = queue.busy
        until = now + LOOK
        tick = now
        while tick < until:  # in seconds, so that a request waits no longer than one for being seen
            while arrival <= tick:
                queue.waiting.append((arrival, steps))
                gap = 1 / rate(arrival)
                arrival += gap if poisson is None else chance.expovariate(1 / gap)
            queue.run(tick, tick + 1)
            tick += 1
        now = until
        answer = scale(current, queue.load(now, (queue.busy - busy_before) / LOOK), wanted, bounds)
        current, wanted = answer.replicas, answer.wanted
        queue.resize(current, now)
        replicas.append(current)
    return Run(replicas, queue.waits)


@pytest.mark.parametrize("demand", [0.3, 0.9, 1.3, 1.9, 2.5, 4.2, 7.7, 12.0])
def test_under_a_constant_load_it_comes_to_rest_at_what_is_needed(demand: float) -> None:
    """`demand`: pods that would be busy all the time. It saws not, and stays at most its room above."""
    run = simulate(lambda at: demand / 4.0)
    assert run.changes(since=3600) == 0
    assert math.ceil(demand) <= run.replicas[-1] <= pods_for_busy(demand)


@pytest.mark.parametrize("demand", [0.5, 1.9, 4.2, 9.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_under_random_arrivals_it_seldom_moves_and_keeps_the_wait(demand: float, seed: int) -> None:
    run = simulate(lambda at: demand / 2.0, steps=2.0, poisson=seed, seconds=8 * 3600)
    settled = run.replicas[240:]
    assert run.changes(since=3600) <= 7  # once an hour; a saw of this window would make 24
    assert demand <= sum(settled) / len(settled) <= pods_for_busy(demand) + 0.5
    late = sorted(run.waits[len(run.waits) // 4 :])
    assert late[int(0.95 * len(late))] <= BOUNDS.target_backlog_seconds


def test_a_step_up_is_followed_and_a_step_down_gives_the_pods_back() -> None:
    run = simulate(lambda at: 1.5 if 3600 <= at < 2 * 3600 else 0.1)
    before, during, after = run.replicas[230], run.replicas[460:480], run.replicas[-1]
    assert (before, after) == (1, 1)
    assert set(during) <= set(range(7, 10))


def test_a_slow_start_up_does_not_make_it_run_away() -> None:
    """Five minutes until a pod is ready, and the load is there at once."""
    run = simulate(lambda at: 1.0, start_up=300)
    assert max(run.replicas) <= 4 * 4 + 4
    assert 4 <= run.replicas[-1] <= 6
    assert run.changes(since=7200) == 0


def test_a_cache_that_warms_gives_pods_back_while_the_load_stays() -> None:
    cold = simulate(lambda at: 1.0, steps=4.0)
    warm = simulate(lambda at: 1.0, steps=2.4)
    assert warm.replicas[-1] < cold.replicas[-1]
