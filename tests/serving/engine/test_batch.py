"""Who shares a denoiser call."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from diffcache_serving.engine.batch import next_batch


@dataclass(frozen=True)
class Standing:
    shape: tuple[int, ...]
    last_step: int
    rows: int = 1


shapes = st.sampled_from([(1, 4, 8, 8), (1, 4, 16, 16)])
runs = st.lists(st.builds(Standing, shapes, st.integers(0, 9), st.integers(1, 2)), min_size=1, max_size=12)


@given(runs, st.integers(1, 8))
def test_the_longest_waiting_leads_and_only_equal_shapes_follow(standing: list[Standing], max_size: int) -> None:
    batch = next_batch(standing, max_size)
    assert batch[0].last_step == min(run.last_step for run in standing)
    assert {run.shape for run in batch} == {batch[0].shape}
    fitting = sorted(run.last_step for run in standing if run.shape == batch[0].shape)
    assert [run.last_step for run in batch] == fitting[:max_size]


@given(runs, st.integers(1, 8), st.integers(0, 12))
def test_no_call_has_more_rows_than_fit(standing: list[Standing], max_size: int, allowed: int) -> None:
    batch = next_batch(standing, max_size, lambda shape: allowed)
    assert batch[0].last_step == min(run.last_step for run in standing)
    assert len(batch) == 1 or sum(run.rows for run in batch) <= allowed
