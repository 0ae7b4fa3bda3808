"""Back-pressure in steps."""

from __future__ import annotations

import asyncio

import pytest

from diffcache_serving.queueing import QueueFull, StepQueue


def test_places_count_what_is_left_to_run() -> None:
    seen: list[tuple[float, int]] = []
    queue = StepQueue(20, lambda steps, requests: seen.append((steps, requests)))
    assert queue.idle.is_set()
    with queue.reserve(8) as one:
        with queue.reserve(8) as other:
            one.shrink(5)
            one.step()
            other.step()
            assert queue.pending_steps == 4 + 7
        assert (queue.pending_steps, queue.requests) == (4, 1)
        assert not queue.idle.is_set()
    assert seen[-1] == (0, 0)
    assert queue.idle.is_set()


def test_beyond_the_limit_it_refuses_and_says_when() -> None:
    queue = StepQueue(10)
    for _ in range(200):
        queue.measured(2.0)
    with (
        queue.reserve(8),
        pytest.raises(QueueFull, match="8 steps are queued and 5 more exceed the limit of 10") as full,
    ):
        queue.reserve(5)
    assert full.value.retry_seconds == pytest.approx(3 * 2.0, rel=0.01)
    queue.reserve(10)


def test_an_empty_queue_takes_any_request() -> None:
    with StepQueue(10).reserve(1000) as place:
        assert place.steps == 1000


def test_a_step_reported_after_the_place_was_given_back_changes_nothing() -> None:
    queue = StepQueue(20)
    with queue.reserve(8) as place:
        place.step()
    place.step()
    assert queue.pending_steps == 0


def test_a_large_picture_counts_for_what_it_takes() -> None:
    queue = StepQueue(100, own_pixels=64 * 64)
    with queue.reserve(8, 64 * 64):
        assert queue.pending_steps == 8
        with queue.reserve(8, 64 * 64), pytest.raises(QueueFull, match="own size"):
            queue.reserve(1, 1024 * 1024)  # a single step, and 203 s of it
        with queue.reserve(2, 128 * 128) as place:
            assert queue.pending_steps == pytest.approx(8 + 2 * 7.6)
            place.step()
            assert queue.pending_steps == pytest.approx(8 + 7.6)
    assert queue.pending_steps == 0


async def test_what_the_device_has_begun_counts_until_it_ends() -> None:
    queue = StepQueue(100)
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with queue.reserve(20) as place:
        place.until(gone)
    assert (queue.pending_steps, queue.requests) == (1, 1)
    assert not queue.idle.is_set()
    gone.set_result(None)
    await queue.idle.wait()
    assert (queue.pending_steps, queue.requests) == (0, 0)


def test_sums_of_parts_leave_nothing_behind() -> None:
    queue = StepQueue(10_000, own_pixels=64 * 64)
    for side in (8, 24, 40, 72, 104):
        with queue.reserve(7, side * side) as place:
            for _ in range(3):
                place.step()
    assert queue.pending_steps == 0
