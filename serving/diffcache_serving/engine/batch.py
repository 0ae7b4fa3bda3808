"""Who shares a denoiser call. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Batchable(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...  # of the latent: only equal ones fit one tensor
    @property
    def last_step(self) -> int: ...  # number of the denoiser call it was last part of; lower has waited longer


RunT = TypeVar("RunT", bound=Batchable)


def next_batch(runs: Sequence[RunT], max_size: int) -> list[RunT]:
    """The run that has waited longest, and up to `max_size - 1` others that fit its call, longest waiting first.

    Timesteps, guidance and prompts may differ: the denoiser takes them per sample. So nobody starves: every call
    serves whoever waited longest.
    """
    waiting = sorted(runs, key=lambda run: run.last_step)
    return [run for run in waiting if run.shape == waiting[0].shape][:max_size]
