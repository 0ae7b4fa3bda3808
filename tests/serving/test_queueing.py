"""Back-pressure in steps."""

from __future__ import annotations

import pytest

from diffcache_serving.queueing import QueueFull, StepQueue


def test_places_count_what_is_left_to_run() -> None:
    seen: list[tuple[int, int]] = []
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
