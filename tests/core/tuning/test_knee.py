"""Where a doubling of the capacity stops being worth it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcache_core.names import SHADOW_MULTIPLES
from diffcache_core.tuning.knee import find_knee, fitted


@given(
    st.lists(
        st.tuples(st.integers(-30, 30), st.floats(-1, 1)), min_size=1, max_size=9, unique_by=lambda point: point[0]
    ),
    st.integers(0, 3),
)
def test_the_polynomial_is_that_of_least_squares(points: list[tuple[int, float]], degree: int) -> None:
    xs, ys = [x / 10 for x, _ in points], [y for _, y in points]
    expected = np.polyfit(xs, ys, min(degree, len(xs) - 1))
    curve = fitted(xs, ys, degree)
    assert [curve(x) for x in xs] == pytest.approx(np.polyval(expected, xs).tolist(), abs=1e-6)


@pytest.mark.parametrize("at", [0.6, 0.9, 1.0, 1.2, 2.5])
def test_it_lies_where_a_doubling_brings_what_it_must(at: float) -> None:
    """saved = top (1 - exp(-c / c0)): its slope over log2 c is top c/c0 exp(-c/c0) ln 2."""
    scale = 2.0
    gain = 0.5 * scale * math.exp(-scale) * math.log(2)
    saved = {multiple: 0.5 * (1 - math.exp(-scale * multiple / at)) for multiple in SHADOW_MULTIPLES}
    assert find_knee(saved, gain).multiple == pytest.approx(at, rel=0.08)


def test_beyond_the_measured_multiples_it_says_the_last_of_them() -> None:
    rising = {multiple: 0.3 + 0.05 * math.log2(multiple) for multiple in SHADOW_MULTIPLES}
    assert find_knee(rising, 0.02).multiple == 4
    assert find_knee(rising, 0.02).worth == pytest.approx(0.03)
    assert find_knee(rising, 0.08).multiple == 0.5
    assert find_knee(rising, 0.08).worth == pytest.approx(0.03)


def test_one_point_says_nothing() -> None:
    assert find_knee({1.0: 0.3}, 0.02).multiple == 1
    assert find_knee({1.0: 0.3}, 0.02).worth == 0
