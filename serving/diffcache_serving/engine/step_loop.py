"""The device thread. Only this thread calls the model. It awaits nothing and does no I/O.

Every running request is at its own step. Each turn of the loop makes one denoiser call for the runs that can share it.
Between two calls the loop handles cancellations and new runs, then at most one encode and one decode. So neither many
new requests nor many finished ones stop the others. Spare work runs one piece at a time, when no request is in the
loop, or between steps if the job allows that.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

import torch

from diffcache_serving.engine.batch import next_batch
from diffcache_serving.engine.call_sizes import CallSizes
from diffcache_serving.engine.device_errors import is_fatal, is_out_of_memory
from diffcache_serving.engine.device_run import DeviceRun
from diffcache_serving.engine.diffusion_model import DiffusionModel
from diffcache_serving.engine.run import Drawn, Encode, Run, Spare, Timings, resolve
from diffcache_serving.engine.running import Running
from diffcache_serving.engine.step import predict
from diffcache_serving.values.errors import DeviceFailed, DeviceOutOfMemory

T = TypeVar("T")

Job = Encode | Spare | Run


class Post(Protocol):
    def __call__(self, callback: Callable[..., None], *args: Any) -> None: ...


class _TooLarge(Exception):
    """A call for several runs did not fit into memory. Each run is still at its previous step."""


class StepLoop:
    """`run` is the function of the thread. It reports with `post(callback, *args)`, which calls `callback` on the event
    loop."""

    def __init__(
        self,
        model: DiffusionModel,
        max_batch: int,
        post: Post,
        on_call: Callable[[float, int, int], None],
        on_memory: Callable[[str], None],
    ) -> None:
        """Calls on the event loop `on_call(seconds, batch size, pixels)` after every denoiser call, and
        `on_memory(call)` after each call that ran out of memory; `call` is one of metrics.DEVICE_CALLS."""
        self.model = model
        self.max_batch = max_batch  # may change between two steps
        self.inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()  # None stops the loop
        self._post, self._on_call, self._on_memory = post, on_call, on_memory
        self._encodes: deque[Encode] = deque()
        self._spare: deque[Spare] = deque()
        self._joining: deque[Run] = deque()
        self._runs: list[Running] = []
        self._sizes = CallSizes()
        self._calls = 0

    def run(self) -> None:
        """Runs until it gets None from the inbox. Raises DeviceFailed, or any error that a bug causes."""
        with torch.inference_mode():
            while self._receive():
                for run in [run for run in self._runs if run.handle.cancelled.is_set()]:
                    self._leave(run)
                while self._joining:
                    self._join(self._joining[0])
                    self._joining.popleft()  # after the work, so that `jobs_left` has the job if the thread ends
                if self._encodes:
                    self._encode(self._encodes[0])
                    self._encodes.popleft()
                denoised = next((run for run in self._runs if run.device.is_denoised), None)
                if denoised is not None:
                    self._finish(denoised)
                running = [run for run in self._runs if not run.device.is_denoised]
                if running:
                    self._step(running)
                if self._spare and (self._spare[0].between_steps or not (self._runs or self._encodes)):
                    self._do_spare(self._spare[0])
                    self._spare.popleft()

    def jobs_left(self) -> list[Job]:
        """Returns the jobs that were sent but not done. Call it only after `run` has ended."""
        left: list[Job] = [*self._encodes, *self._spare, *self._joining, *(run.handle for run in self._runs)]
        while not self.inbox.empty():
            if (job := self.inbox.get()) is not None:
                left.append(job)
        return left

    def _receive(self) -> bool:
        """Takes jobs from the inbox. Waits for one if there is nothing to do. Returns False if the loop has to stop."""
        idle = not (self._runs or self._encodes or self._spare)
        while idle or not self.inbox.empty():
            job = self.inbox.get()
            idle = False
            if job is None:
                return False
            if isinstance(job, Encode):
                self._encodes.append(job)
            elif isinstance(job, Spare):
                self._spare.append(job)
            else:
                self._joining.append(job)
        return True

    def _encode(self, job: Encode) -> None:
        started = time.perf_counter()
        if job.future.cancelled():
            return
        try:
            text = self._alone("encode", lambda: self.model.encode(job.request))
        except Exception as error:  # any error belongs to this request and must not end the loop
            self._refuse(job, error)
            return
        timings = Timings(queue=started - job.posted, encode=time.perf_counter() - started)
        self._post(resolve, job.future, (text, timings), None)

    def _do_spare(self, job: Spare) -> None:
        if job.future.cancelled():
            return
        try:
            result = self._alone("spare", job.work, tries=1)  # no second try, because a part may be done already
            self.model.synchronize()  # otherwise the next call would wait for this work
        except Exception as error:
            self._refuse(job, error)
            return
        self._post(resolve, job.future, result, None)

    def _join(self, handle: Run) -> None:
        if handle.cancelled.is_set():
            self._post(handle.left)
            return
        try:
            device = self._alone(
                "start", lambda: DeviceRun.begin(self.model, handle.request, handle.text, handle.found, handle.keep)
            )
        except Exception as error:
            self._refuse(handle, error)
            return
        device.last_step = self._calls  # it waits from now on, behind the runs that joined before
        self._runs.append(Running(handle, device, waiting_since=handle.posted))

    def _step(self, running: list[Running]) -> None:
        now = time.monotonic()
        by_device = {run.device: run for run in running}
        devices = next_batch(list(by_device), self.max_batch, lambda shape: self._sizes.allowed(shape, now))
        batch = [by_device[device] for device in devices]
        shape, rows = devices[0].shape, sum(device.rows for device in devices)
        self._calls += 1
        started = time.perf_counter()
        for run in batch:
            run.step_begins(started)
        try:
            advanced, fitted = self._advance(batch)
        except Exception as error:
            for run in batch:
                self._drop(run, error)
            return
        ended = time.perf_counter()
        (self._sizes.fitted if fitted else self._sizes.failed)(shape, rows, now)
        if not advanced:
            return
        self._post(self._on_call, ended - started, len(batch), self.model.pixels(shape))
        for run in advanced:
            run.device.last_step = self._calls
            run.step_ended(ended)
            self._post(run.handle.stepped, run.device.i)

    def _advance(self, batch: list[Running]) -> tuple[list[Running], bool]:
        """Makes one denoiser call and then the step of each run.

        Returns the runs that advanced, and whether the memory was sufficient. A run whose own step failed is dropped.
        Any other run that did not advance stays at its step. Raises an error that affects all of the runs.
        """

        def predicted() -> list[torch.Tensor]:
            outputs = predict(self.model, [run.device for run in batch])
            self.model.synchronize()
            return outputs

        advanced: list[Running] = []
        try:
            outputs = self._shared(len(batch), predicted)
        except _TooLarge:
            return advanced, False
        fitted = True
        for run, output in zip(batch, outputs, strict=True):
            try:
                self._shared(len(batch), partial(run.device.advance, output))
                advanced.append(run)
            except _TooLarge:
                fitted = False
            except Exception as error:
                self._drop(run, error)
        return advanced, fitted

    def _finish(self, run: Running) -> None:
        started = time.perf_counter()
        try:
            image, flagged = self._alone("decode", run.device.finish)
        except Exception as error:
            self._drop(run, error)
            return
        timings = run.timings_of_all(decode_began=started, decode_ended=time.perf_counter())
        self._runs.remove(run)
        self._post(run.handle.drawn, Drawn(image, flagged, run.device.captured, timings))

    def _leave(self, run: Running) -> None:
        self._runs.remove(run)
        self._post(run.handle.left)

    def _drop(self, run: Running, error: Exception) -> None:
        self._runs.remove(run)
        self._refuse(run.handle, error)

    def _refuse(self, job: Job, error: Exception) -> None:
        """Reports `error` to the job. Raises the error again if it is DeviceFailed, because then the loop ends."""
        self._post(job.give_up, error)
        if isinstance(error, DeviceFailed):
            raise error

    def _shared(self, runs: int, work: Callable[[], T]) -> T:
        """Calls `work`, which serves `runs` runs, and returns its result.

        Raises _TooLarge if there are several runs and the memory is not sufficient.
        """
        if runs == 1:
            return self._alone("step", work)
        try:
            return self._alone("step", work, tries=1)
        except DeviceOutOfMemory:
            raise _TooLarge from None

    def _alone(self, call: str, work: Callable[[], T], tries: int = 2) -> T:
        """Calls `work` and returns its result. If it runs out of memory, torch frees its cache and `work` runs again.

        `tries` is the number of attempts. Raises DeviceOutOfMemory, DeviceFailed, or what `work` raises.
        """
        for _ in range(tries):
            try:
                return work()
            except Exception as error:
                if is_fatal(error, self.model.device):
                    raise DeviceFailed(f"the device failed: {str(error).strip().splitlines()[0]}") from None
                if not is_out_of_memory(error):
                    raise
            # This must be outside of the handler: the traceback holds the tensors of the failed call until here.
            self._post(self._on_memory, call)
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()
        raise DeviceOutOfMemory("the device is out of memory")
