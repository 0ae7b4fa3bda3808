"""What a step of another size counts for."""

from __future__ import annotations

import pytest

from diffcache_core.work import step_cost

OWN = 64 * 64


def test_a_step_at_the_own_size_is_the_unit() -> None:
    assert step_cost(OWN, OWN) == 1


@pytest.mark.parametrize(("side", "least", "most"), [(32, 0.15, 0.25), (128, 4, 16), (1024, 10_000, 65_536)])
def test_it_grows_faster_than_the_area_and_slower_than_its_square(side: int, least: float, most: float) -> None:
    assert least <= step_cost(side * side, OWN) <= most
