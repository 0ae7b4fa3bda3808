"""Back-pressure: counts the work that the server has accepted, in denoising steps at the model's own size."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from diffcache_core.work import step_cost
from diffcache_serving.values.hot_config import HotConfig


class QueueFull(Exception):
    """The queue has no room for this work now. In about `retry_seconds` it probably has."""

    def __init__(self, message: str, retry_seconds: float) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class Place:
    """The steps of one request in the queue. A context manager: on exit it removes the remaining steps from the count.

    A device call that has begun counts until it ends, even if nobody waits for it any more: see `until`.
    """

    def __init__(self, queue: StepQueue, steps: int, cost: float) -> None:
        """`cost` is the cost of one step of this request, in steps at the model's own size."""
        self._queue, self.steps, self._cost = queue, steps, cost
        self._is_held = False
        self._gone: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        self._is_held = True
        self._queue.change(self.steps * self._cost, requests=1)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._gone is None or self._gone.done():
            self._give_back()
            return
        self.shrink(min(self.steps, 1))  # the device call that has begun; no further call follows
        self._gone.add_done_callback(lambda gone: self._give_back())

    def until(self, gone: asyncio.Future[None]) -> None:
        """Says that the device works for this request until `gone` is done."""
        self._gone = gone

    def shrink(self, steps: int) -> None:
        """Says that only `steps` are left to run.

        Does nothing after the place was given back, because the last step of a cancelled run may be reported late.
        """
        if not self._is_held:
            return
        self._queue.change((steps - self.steps) * self._cost)
        self.steps = steps

    def step(self) -> None:
        """Says that one step was run."""
        self.shrink(max(0, self.steps - 1))

    def _give_back(self) -> None:
        self._is_held = False
        self._queue.change(-self.steps * self._cost, requests=-1)


class StepQueue:
    """Counts the remaining work, queued and running, and refuses more than `max_steps`.

    The unit is one step at the model's own size. A step of a larger picture counts for more, in proportion to its time.
    """

    def __init__(
        self,
        max_steps: int,
        on_change: Callable[[float, int], None] = lambda steps, requests: None,
        own_pixels: int | None = None,
    ) -> None:
        """`on_change(pending steps, requests)` is called after each change.

        `own_pixels` is width times height of the model's own size; with None every step counts 1.
        """
        self.max_steps, self._on_change, self._own_pixels = max_steps, on_change, own_pixels
        self.pending_steps = 0.0
        self.requests = 0
        self.idle = asyncio.Event()  # set while there is no request
        self.idle.set()
        self.seconds_per_step = 0.05  # until the first step is measured; only used for the retry hint

    async def apply(self, hot: HotConfig) -> None:
        self.max_steps = hot.config.queue_max_steps

    def cost(self, pixels: int | None) -> float:
        """Returns the cost of one step of a picture with this number of pixels."""
        return 1.0 if pixels is None or self._own_pixels is None else step_cost(pixels, self._own_pixels)

    def reserve(self, steps: int, pixels: int | None = None) -> Place:
        """Returns a place for a request of `steps` steps and `pixels` pixels.

        Raises QueueFull if the work exceeds `max_steps`. An empty queue accepts any request.
        """
        cost = self.cost(pixels)
        work = steps * cost
        if self.pending_steps and self.pending_steps + work > self.max_steps:
            excess = self.pending_steps + work - self.max_steps
            raise QueueFull(
                f"{self.pending_steps:.0f} steps are queued and {work:.0f} more exceed the limit of {self.max_steps} "
                "(counted in steps at the model's own size): try again later, with fewer steps or a smaller size",
                retry_seconds=max(0.1, excess * self.seconds_per_step),
            )
        return Place(self, steps, cost)

    def change(self, steps: float, requests: int = 0) -> None:
        self.requests += requests
        # Float sums collect rounding errors, so an empty queue is set to 0.
        self.pending_steps = max(0.0, self.pending_steps + steps) if self.requests else 0.0
        if self.requests:
            self.idle.clear()
        else:
            self.idle.set()
        self._on_change(self.pending_steps, self.requests)

    def measured(self, seconds: float) -> None:
        """Records how long one step took. The retry hint follows slowly, so that one unusual step changes it little."""
        self.seconds_per_step += 0.1 * (seconds - self.seconds_per_step)
