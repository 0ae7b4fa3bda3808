"""Who shares a denoiser call. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class Batchable(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...  # of the latent: only equal ones fit one tensor
    @property
    def rows(self) -> int: ...  # of the call that it takes
    @property
    def last_step(self) -> int: ...  # number of the denoiser call it was last part of; lower has waited longer


RunT = TypeVar("RunT", bound=Batchable)


def next_batch(
    runs: Sequence[RunT], max_size: int, rows_allowed: Callable[[tuple[int, ...]], float] = lambda shape: float("inf")
) -> list[RunT]:
    """The run that has waited longest, and up to `max_size - 1` others that fit its call, longest waiting first.

    Timesteps, guidance and prompts may differ: the denoiser takes them per sample. So nobody starves: every call
    serves whoever waited longest. `rows_allowed(shape)`: more rows do not fit into the device's memory, unless they
    are a single run's.
    """
    first, *others = sorted(runs, key=lambda run: run.last_step)
    batch, room = [first], rows_allowed(first.shape) - first.rows
    for run in others:
        if len(batch) < max_size and run.shape == first.shape and run.rows <= room:
            batch.append(run)
            room -= run.rows
    return batch
