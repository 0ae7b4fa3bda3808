"""Back-pressure in steps: how much denoising the server has promised."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self


class QueueFull(Exception):
    """No room for so many steps now. `retry_seconds` is when there probably will be."""

    def __init__(self, message: str, retry_seconds: float) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class Place:
    """A request's steps in the queue; a context manager that gives back what is left."""

    def __init__(self, queue: StepQueue, steps: int) -> None:
        self._queue, self.steps = queue, steps
        self._is_held = False

    def __enter__(self) -> Self:
        self._is_held = True
        self._queue.change(self.steps, requests=1)
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_held = False
        self._queue.change(-self.steps, requests=-1)

    def shrink(self, steps: int) -> None:
        """Only `steps` are left to run. Nothing to do once the place is given back: a cancelled run's last step may
        still be reported."""
        if not self._is_held:
            return
        self._queue.change(steps - self.steps)
        self.steps = steps

    def step(self) -> None:
        """One step was run."""
        self.shrink(self.steps - 1)


class StepQueue:
    """Counts the steps that are left to run, queued and running, and refuses more than `max_steps`."""

    def __init__(self, max_steps: int, on_change: Callable[[int, int], None] = lambda steps, requests: None) -> None:
        """`on_change(pending steps, requests)` is told of every change."""
        self.max_steps, self._on_change = max_steps, on_change
        self.pending_steps = self.requests = 0
        self.idle = asyncio.Event()  # set while there is no request
        self.idle.set()
        self.seconds_per_step = 0.05  # until the first step is measured; only used for the retry hint

    def reserve(self, steps: int) -> Place:
        """A place for a request of `steps`. Raises QueueFull; an empty queue takes any request."""
        if self.pending_steps and self.pending_steps + steps > self.max_steps:
            excess = self.pending_steps + steps - self.max_steps
            raise QueueFull(
                f"{self.pending_steps} steps are queued and {steps} more exceed the limit of {self.max_steps}: try "
                "again later, or with fewer steps",
                retry_seconds=max(0.1, excess * self.seconds_per_step),
            )
        return Place(self, steps)

    def change(self, steps: int, requests: int = 0) -> None:
        self.pending_steps += steps
        self.requests += requests
        if self.requests:
            self.idle.clear()
        else:
            self.idle.set()
        self._on_change(self.pending_steps, self.requests)

    def measured(self, seconds: float) -> None:
        """One step took so long; the hint follows slowly, so that one odd step does not move it far."""
        self.seconds_per_step += 0.1 * (seconds - self.seconds_per_step)
