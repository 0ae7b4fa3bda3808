from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcache_core.histograms import quantile


@pytest.mark.parametrize(
    ("share", "buckets", "value"),
    [
        (0.95, {}, None),
        (0.95, {1.0: 0.0, math.inf: 0.0}, None),
        (0.5, {1.0: 10.0, 3.0: 20.0, math.inf: 20.0}, 1.0),
        (0.75, {1.0: 10.0, 3.0: 20.0, math.inf: 20.0}, 2.0),
        (0.25, {1.0: 10.0, math.inf: 10.0}, 0.25),
        (0.95, {1.0: 10.0, 3.0: 10.0, math.inf: 20.0}, 3.0),
        (0.95, {1.0: 10.0, 3.0: 9.0, math.inf: 10.0}, 0.95),  # out of order
    ],
)
def test_quantile(share: float, buckets: dict[float, float], value: float | None) -> None:
    assert quantile(share, buckets) == (None if value is None else pytest.approx(value))


@given(st.lists(st.sampled_from([0.05, 0.5, 5.0]), min_size=1), st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_bucket_of_its_observation(values: list[float], share: float) -> None:
    bounds = [0.1, 1.0, math.inf]
    found = quantile(share, {bound: float(sum(v <= bound for v in values)) for bound in bounds})
    rank = next(v for i, v in enumerate(sorted(values), 1) if i >= share * len(values))
    low, high = {0.05: (0.0, 0.1), 0.5: (0.1, 1.0), 5.0: (1.0, 1.0)}[rank]
    assert found is not None
    assert low - 1e-9 <= found <= high + 1e-9
