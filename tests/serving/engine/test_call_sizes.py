"""How large a call may be after calls that did not fit: what it settles at, and how it grows again."""

from __future__ import annotations

import math

import pytest

from diffcache_serving.engine.call_sizes import PROBE_SECONDS, SHAPES_KEPT, CallSizes

SHAPE = (1, 4, 16, 16)


def settle(sizes: CallSizes, fits: int, wanted: int, now: float) -> list[int]:
    """The calls that `wanted` rows lead to where only `fits` have room, until one fits."""
    made = []
    while True:
        rows = int(min(wanted, sizes.allowed(SHAPE, now)))
        made.append(rows)
        if rows <= fits or rows == 1:
            sizes.fitted(SHAPE, rows, now)
            return made
        sizes.failed(SHAPE, rows, now)


def test_nothing_is_limited_before_a_call_has_failed() -> None:
    sizes = CallSizes()
    sizes.fitted(SHAPE, 16, 0.0)
    assert sizes.allowed(SHAPE, 0.0) == math.inf


def test_it_halves_until_it_fits_and_remembers() -> None:
    sizes = CallSizes()
    assert settle(sizes, fits=3, wanted=16, now=0.0) == [16, 8, 4, 2]
    assert settle(sizes, fits=3, wanted=16, now=PROBE_SECONDS - 1) == [2]


@pytest.mark.parametrize("fits", [2, 3, 5, 11, 16])
def test_it_grows_again_and_a_probe_that_fails_costs_one_call(fits: int) -> None:
    sizes = CallSizes()
    settle(sizes, fits=2, wanted=16, now=0.0)  # a shortage
    for minute in range(1, 12):
        made = settle(sizes, fits=fits, wanted=16, now=minute * (PROBE_SECONDS + 1))
        assert len(made) <= 2
    assert sizes.allowed(SHAPE, 0.0) >= min(16, fits) * 2 // 3


def test_a_shortage_that_grows_is_followed() -> None:
    sizes = CallSizes()
    settle(sizes, fits=8, wanted=16, now=0.0)
    assert settle(sizes, fits=2, wanted=16, now=1.0) == [8, 4, 2]
    assert settle(sizes, fits=1, wanted=16, now=2.0) == [2, 1]


def test_sizes_of_pictures_are_told_apart_and_only_so_many_are_remembered() -> None:
    sizes = CallSizes()
    for side in range(SHAPES_KEPT + 10):
        sizes.failed((1, 4, side, side), 8, 0.0)
    assert sizes.allowed((1, 4, 999, 999), 0.0) == math.inf
    remembered = [side for side in range(SHAPES_KEPT + 10) if sizes.allowed((1, 4, side, side), 0.0) < math.inf]
    assert len(remembered) == SHAPES_KEPT
