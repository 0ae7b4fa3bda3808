"""A run in the step loop. Device thread only."""

from __future__ import annotations

from dataclasses import dataclass, field

from diffcache_serving.engine.device_run import DeviceRun
from diffcache_serving.engine.run import Run, Timings


@dataclass(eq=False)
class Running:
    """The latent of a run, the handle that waits for it, and its timings so far.

    Times are values of time.perf_counter.
    """

    handle: Run
    device: DeviceRun
    waiting_since: float  # start of the wait for the first step; later, for the decode
    timings: Timings = field(default_factory=Timings)
    started: float | None = None

    def step_begins(self, now: float) -> None:
        if self.started is None:
            self.started = now
            self.timings.queue += now - self.waiting_since

    def step_ended(self, now: float) -> None:
        if self.device.is_denoised and self.started is not None:
            self.timings.denoise = now - self.started
            self.waiting_since = now

    def timings_of_all(self, decode_began: float, decode_ended: float) -> Timings:
        self.timings.queue += decode_began - self.waiting_since
        self.timings.decode = decode_ended - decode_began
        return self.timings
