"""From what pods export to the load that a number of pods is chosen by."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from prometheus_client import generate_latest

from diffcache_operator.scaling.work import Snapshot, Work, load_of, parse
from diffcache_serving.metrics import Metrics

IDLE = Work(pending_steps=0, step_seconds=0, calls=0, device_seconds=0)
BUSY = Work(pending_steps=40, step_seconds=5, calls=10, device_seconds=8)


def test_work_is_what_a_serving_process_exports() -> None:
    metrics = Metrics("emoji")
    metrics.pending_steps.set(40)
    for seconds in (0.25, 0.75):
        metrics.step_seconds.observe(seconds)
        metrics.device_seconds.inc(2 * seconds)
    assert parse(generate_latest(metrics.registry).decode()) == Work(40, 1.0, 2, 2.0)


@pytest.mark.parametrize(
    "text",
    ["", "up 1\n", "diffcache_pending_steps NaN\n", "diffcache_pending_steps -1\n", "diffcache_pending_steps +Inf\n"],
)
def test_what_no_pod_of_ours_says(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse(text)


def test_an_old_image_does_not_count_its_devices_time() -> None:
    assert parse("diffcache_pending_steps 3\n").device_seconds is None


def test_nothing_is_known_when_no_pod_answers() -> None:
    assert load_of([], 2) is None
    assert load_of([Snapshot(0, {"a": IDLE}), Snapshot(5, {})], 2) is None


def test_one_look_knows_what_waits_but_not_how_busy_the_pods_are() -> None:
    load = load_of([Snapshot(7, {"a": BUSY})], 1)
    assert load is not None
    assert (load.at, load.ready, load.pending_steps, load.seconds_per_step, load.busy) == (7, 1, 40, 0.5, None)
    new = load_of([Snapshot(7, {"a": IDLE})], 1)
    assert new is not None
    assert new.seconds_per_step is None


def test_load_of_two_pods_over_ten_seconds() -> None:
    later = Work(pending_steps=10, step_seconds=9, calls=14, device_seconds=16)
    seen = [
        Snapshot(0, {"a": BUSY, "b": IDLE}),
        Snapshot(5, {"a": later, "b": IDLE}),
        Snapshot(10, {"a": later, "b": IDLE}),
    ]
    load = load_of(seen, 2)
    assert load is not None
    assert (load.pending_steps, load.seconds_per_step, load.busy) == pytest.approx((10, 1.0, 0.8))


def test_a_pod_that_does_not_answer_is_taken_for_one_like_the_others() -> None:
    later = replace(BUSY, device_seconds=13)
    load = load_of([Snapshot(0, {"a": BUSY}), Snapshot(10, {"a": later})], 2)
    assert load is not None
    assert (load.ready, load.pending_steps, load.busy) == pytest.approx((2, 80, 1.0))


def test_a_pod_that_began_anew_has_worked_as_much_as_it_says() -> None:
    again = Work(pending_steps=4, step_seconds=1, calls=4, device_seconds=2)
    load = load_of([Snapshot(0, {"a": BUSY}), Snapshot(10, {"a": again})], 1)
    assert load is not None
    assert (load.seconds_per_step, load.busy) == pytest.approx((0.25, 0.2))


def test_a_pod_that_has_just_come_does_not_hide_the_others_share() -> None:
    later = replace(BUSY, device_seconds=18)
    load = load_of([Snapshot(0, {"a": BUSY}), Snapshot(10, {"a": later, "b": IDLE})], 2)
    assert load is not None
    assert load.busy is not None
    assert math.isclose(load.busy, 2.0)
