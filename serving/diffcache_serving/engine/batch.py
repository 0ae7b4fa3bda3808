"""Chooses the runs that share a denoiser call. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class Batchable(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...  # shape of the latent: only equal shapes fit into one tensor
    @property
    def rows(self) -> int: ...  # rows that this run takes in the call
    @property
    def last_step(self) -> int: ...  # number of its last denoiser call; a lower number has waited longer


RunT = TypeVar("RunT", bound=Batchable)


def next_batch(
    runs: Sequence[RunT], max_size: int, rows_allowed: Callable[[tuple[int, ...]], float] = lambda shape: float("inf")
) -> list[RunT]:
    """Returns the run that has waited longest, and up to `max_size - 1` others that can share its call, in the order of
    their wait.

    Timesteps, guidance and prompts may differ, because the denoiser takes them per sample. Every call includes the run
    that has waited longest, so no run starves. `rows_allowed(shape)` is the number of rows that fit into the device's
    memory; a single run may have more.
    """
    first, *others = sorted(runs, key=lambda run: run.last_step)
    batch, room = [first], rows_allowed(first.shape) - first.rows
    for run in others:
        if len(batch) < max_size and run.shape == first.shape and run.rows <= room:
            batch.append(run)
            room -= run.rows
    return batch
