"""One key at a time, bursts merged, failures further and further apart: with a clock that the test holds."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcache_operator.queue import EAGER_RETRY, GONE, LAST_RETRY, Key, Queue, Schedule

A, B = Key("ns", "a"), Key("ns", "b")


def schedule() -> Schedule:
    return Schedule(jitter=lambda: 0.5)  # no jitter


def test_a_burst_becomes_one_run() -> None:
    s = schedule()
    for _ in range(100):
        s.add(A, 0)
    assert s.take(0) == A
    assert s.take(0) is None


def test_what_arrives_during_a_run_makes_one_more() -> None:
    s = schedule()
    s.add(A, 0)
    assert s.take(0) == A
    s.add(A, 1)
    s.add(A, 1)
    assert s.take(2) is None  # never twice at once
    s.succeeded(A, 3, again_after=600)
    assert s.take(3) == A
    s.succeeded(A, 4, again_after=600)
    assert s.take(5) is None
    assert s.next_due() == 604


def test_the_longest_waiting_goes_first() -> None:
    s = schedule()
    s.add(B, 1)
    s.add(A, 2)
    assert [s.take(3), s.take(3)] == [B, A]


def test_failures_wait_from_1_s_to_5_min() -> None:
    s, now, waits = schedule(), 0.0, []
    s.add(A, now)
    for _ in range(12):
        assert s.take(now) == A
        waits.append(s.failed(A, now))
        now += waits[-1]
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == LAST_RETRY
    assert s.take(now) == A
    s.succeeded(A, now, again_after=10)
    assert s.take(now + 10) == A
    assert s.failed(A, now) == 1  # a success forgets the failures


def test_progress_forgets_earlier_failures() -> None:
    """A server that refuses each write twice is waited for twice 1 and 2 s a write, not for ever longer."""
    s, now = schedule(), 0.0
    s.add(A, now)
    for _ in range(6):
        assert s.take(now) == A
        now += s.failed(A, now)
    assert s.take(now) == A
    s.progressed(A)
    assert s.failed(A, now) == 1


def test_a_change_of_a_failing_object_is_tried_soon_but_not_at_once() -> None:
    s, now = schedule(), 0.0
    s.add(A, now)
    for _ in range(5):
        assert s.take(now) == A
        now += s.failed(A, now)
    assert s.take(now) == A
    s.add(A, now)  # a change while it runs
    s.failed(A, now)  # alone this would wait 32 s
    for when in (now, now + 1, now + 4.9):
        s.add(A, when)  # its pod restarts all the time
        assert s.take(when) is None
    assert s.next_due() == now + EAGER_RETRY


def test_jitter_spreads() -> None:
    s = Schedule()
    for key in (Key("ns", str(i)) for i in range(50)):
        s.add(key, 0)
        assert s.take(0) == key
        s.succeeded(key, 0, again_after=100)
        assert 80 <= (s.next_due() or 0) <= 120
    assert len({item.due for item in s._items.values()}) > 40


def test_a_gone_object_is_forgotten_unless_it_came_back() -> None:
    s = schedule()
    s.add(A, 0)
    s.take(0)
    s.forget(A)
    assert len(s) == 0
    s.add(A, 0)
    s.take(0)
    s.add(A, 1)
    s.forget(A)
    assert s.take(1) == A


@given(st.lists(st.sampled_from(["add a", "add b", "take", "ok", "fail", "gone"]), max_size=60))
def test_never_two_at_once_and_nothing_is_lost(steps: list[str]) -> None:
    s, now = schedule(), 0.0
    running: list[Key] = []
    wanted: set[Key] = set()
    for step in steps:
        now += 1000  # later than any wait
        if step.startswith("add"):
            key = Key("ns", step[-1])
            s.add(key, now)
            wanted.add(key)
        elif step == "take" and (taken := s.take(now)) is not None:
            assert taken not in running
            running.append(taken)
            wanted.discard(taken)
        elif running and step != "take":
            key = running.pop(0)
            if step == "ok":
                s.succeeded(key, now, again_after=600)
            elif step == "fail":
                s.failed(key, now)
                wanted.add(key)
            else:
                s.forget(key)
    for key in running:
        s.succeeded(key, now, again_after=600)
    rest = {s.take(now + 10_000) for _ in range(3)}
    assert wanted <= rest


async def test_the_queue_runs_many_objects_and_never_one_twice_at_once() -> None:
    runs: Counter[Key] = Counter()
    inside: set[Key] = set()
    all_done = asyncio.Event()

    async def reconcile(key: Key) -> object:
        assert key not in inside
        inside.add(key)
        runs[key] += 1
        if runs[key] == 1:
            queue.add(*key)  # its own write comes back as an event
            await asyncio.sleep(0)
        inside.discard(key)
        if len(runs) == 300 and min(runs.values()) >= 2:
            all_done.set()
        return 600.0

    def never(key: Key, error: Exception, wait: float) -> None:
        raise AssertionError(error)

    queue = Queue(reconcile, never)
    task = asyncio.create_task(queue.run())
    for i in range(300):
        queue.add("ns", str(i))
        queue.add("ns", str(i))
    await asyncio.wait_for(all_done.wait(), 30)
    assert set(runs.values()) == {2}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_one_object_that_fails_does_not_hold_up_the_others() -> None:
    told: list[str] = []
    done = asyncio.Event()

    async def reconcile(key: Key) -> object:
        if key == A:
            raise ValueError("no")
        done.set()
        return GONE

    queue = Queue(reconcile, lambda key, error, wait: told.append(f"{key.name}: {error}"))
    task = asyncio.create_task(queue.run())
    queue.add(*A)
    queue.add(*B)
    await asyncio.wait_for(done.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told == ["a: no"]


def test_what_is_cared_for_needs_no_reminder() -> None:
    schedule, key = Schedule(), Key("a", "b")
    assert not schedule.is_cared_for(key)
    schedule.add(key, 0)
    assert schedule.is_cared_for(key)
    assert schedule.take(0) == key
    assert schedule.is_cared_for(key)
    schedule.failed(key, 0)
    assert not schedule.is_cared_for(key)
    assert schedule.take(1000) == key
    schedule.succeeded(key, 1000, 5)
    assert schedule.is_cared_for(key)
