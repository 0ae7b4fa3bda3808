"""The interface of the event loop to the device thread: `encode`, `run` and `spare`.

Jobs go to the thread through a queue; results come back through `call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from diffcache_core.generation import GenerationRequest
from diffcache_serving.engine.diffusion_model import DiffusionModel
from diffcache_serving.engine.run import Encode, Spare
from diffcache_serving.engine.run import Run as Run
from diffcache_serving.engine.run import Timings as Timings
from diffcache_serving.engine.step_loop import Job, StepLoop
from diffcache_serving.values.errors import DeviceFailed
from diffcache_serving.values.errors import DeviceOutOfMemory as DeviceOutOfMemory
from diffcache_serving.values.found import Found
from diffcache_serving.values.hot_config import HotConfig
from diffcache_serving.values.text import TextEncoding

T = TypeVar("T")


class EngineStopped(RuntimeError):
    """The server is shutting down and has given up this run."""


class Engine:
    """Owns the device thread."""

    def __init__(
        self,
        model: DiffusionModel,
        max_batch: int,
        on_call: Callable[[float, int, int], None] = lambda seconds, size, pixels: None,
        on_memory: Callable[[str], None] = lambda call: None,
    ) -> None:
        """Calls on the event loop `on_call(seconds, batch size, pixels of a picture)` after every denoiser call, and
        `on_memory(call)` after each call that ran out of memory."""
        self.model = model
        self.loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self.loop.create_future()
        """Done when the device thread has ended. Its exception is DeviceFailed if the thread ended without `stop`."""
        self._refusal: Exception | None = None  # if set, every further job gets this error
        self._steps = StepLoop(model, max_batch, self._post, on_call, on_memory)
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    @property
    def max_batch(self) -> int:
        """Returns how many runs may share one denoiser call."""
        return self._steps.max_batch

    @max_batch.setter
    def max_batch(self, size: int) -> None:
        self._steps.max_batch = size

    async def apply(self, hot: HotConfig) -> None:
        self.max_batch = hot.config.batch_max_size

    async def encode(self, request: GenerationRequest) -> tuple[TextEncoding, Timings]:
        """Returns conditioning and key of a request, and the seconds for encoding and waiting.

        Raises EngineStopped, DeviceOutOfMemory, or what the model raises.
        """
        job = Encode(request, self.loop.create_future())
        self._put(job)
        return await job.future

    async def spare(self, work: Callable[[], T], *, between_steps: bool = False) -> T:
        """Calls `work` on the device thread when it handles no request, or `between_steps` of running requests.

        Returns what `work` returns and raises what it raises. A request that arrives meanwhile waits until `work`
        returns, so `work` should take no longer than a step. No counter of steps includes it. Cancelling drops the job
        if it has not begun.
        """
        job = Spare(work, between_steps, self.loop.create_future())
        self._put(job)
        result: T = await job.future
        return result

    def run(
        self,
        request: GenerationRequest,
        text: TextEncoding,
        found: Found,
        *,
        keep: tuple[int, ...] = (),
        on_step: Callable[[], None] = lambda: None,
    ) -> Run:
        """Returns a run, to be entered with `async with`. `keep` lists the steps at which to capture `Trajectory`
        states. `on_step()` is called on the event loop after each step."""
        return Run(self.loop, self._put, request, text, found, keep, on_step)

    async def stop(self) -> None:
        """Ends the device thread. Jobs that still wait or run get EngineStopped."""
        self._refusal = self._refusal or EngineStopped()
        self._steps.inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    def _put(self, job: Job) -> None:
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)
        self._steps.inbox.put(job)

    def _run(self) -> None:
        """Runs in the device thread."""
        failure: Exception | None = None
        try:
            self._steps.run()
        except DeviceFailed as error:
            failure = error
        except BaseException as error:  # a bug of ours, which no caller would see in a thread
            failure = DeviceFailed(f"the device thread ended with {type(error).__name__}: {error}")
            failure.__cause__ = error
        self._post(self._end, failure)

    def _end(self, failure: Exception | None) -> None:
        """Runs on the event loop: gives up all remaining jobs, including those sent after the thread ended."""
        self._refusal = failure or EngineStopped()
        for job in self._steps.jobs_left():
            job.give_up(self._refusal)
        if failure is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(failure)
            self.ended.exception()  # marks it as retrieved, in case nobody awaits `ended`

    def _post(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the event loop is closed because the process ends, so nobody waits for the result
            self._steps.inbox.put(None)
