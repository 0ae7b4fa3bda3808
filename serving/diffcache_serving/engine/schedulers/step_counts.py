"""Finds which numbers of steps the noise schedule of a model supports."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from diffcache_core.generation import MAX_STEPS, InvalidRequest, Violation
from diffcache_serving.engine.schedulers.schedule import build_scheduler


class StepCounts:
    """Tries numbers of steps, and remembers at most MAX_STEPS answers. May be used from any thread."""

    def __init__(self, name: str, config: Mapping[str, Any]) -> None:
        self._scheduler = build_scheduler(name, config)
        self._lock = threading.Lock()
        self._known: dict[int, bool] = {}

    def check(self, steps: int) -> None:
        """Raises InvalidRequest if `steps` is not supported. The message names the nearest and the largest supported
        number."""
        if self._can(steps):
            return
        largest = self._first(range(MAX_STEPS, 0, -1))
        if largest is None:
            problem = "this model's noise schedule makes no run at all: correct its scheduler_config.json"
        else:
            near = min(largest, self._first(range(steps - 1, 0, -1)) or largest)
            problem = f"this model's noise schedule makes no run of {steps}: try {near}; the largest is {largest}"
        raise InvalidRequest([Violation("steps", problem)])

    def _first(self, counts: range) -> int | None:
        return next((steps for steps in counts if self._can(steps)), None)

    def _can(self, steps: int) -> bool:
        with self._lock:
            if steps not in self._known:
                self._known[steps] = can_make(self._scheduler, steps)
            return self._known[steps]


def can_make(scheduler: Any, steps: int) -> bool:
    """Returns whether `scheduler` makes exactly `steps` steps, each on the noise schedule and with a finite result."""
    try:
        scheduler.set_timesteps(steps)
    except (ValueError, IndexError, ZeroDivisionError):  # for example, more steps than the training had
        return False
    timesteps = scheduler.timesteps
    if len(timesteps) != steps or not torch.isfinite(timesteps.double()).all():
        return False
    if isinstance(scheduler, DDIMScheduler):  # it uses the timestep as an index, and -1 would mean the last one
        return bool(timesteps.min() >= 0 and timesteps.max() < len(scheduler.alphas_cumprod))
    sigmas = scheduler.sigmas[:steps]  # without the final one, which may equal that of the last step
    if not torch.isfinite(sigmas).all():
        return False
    if isinstance(scheduler, DPMSolverMultistepScheduler):  # it divides by each decrease of the noise
        return bool((sigmas[:-1] > sigmas[1:]).all())
    return steps == 1 or bool(sigmas[0] > sigmas[-1])
