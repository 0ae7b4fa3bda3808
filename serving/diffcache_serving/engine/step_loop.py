"""The device thread: it alone calls the model. It awaits nothing and does no I/O.

Every running request stands at its own step; each turn makes one denoiser call for those that can share it. Between
two calls: cancellations, joins, then at most one encode and one decode, so that neither a crowd of newcomers nor of
finishers stops the others. Spare work is done where no request is in the loop, a piece at a time.
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
    """A call of several runs did not fit into memory; each stands where it stood."""


class StepLoop:
    """`run` is the thread. What it has to say it says with `post(callback, *args)`, which calls on the event loop."""

    def __init__(
        self,
        model: DiffusionModel,
        max_batch: int,
        post: Post,
        on_call: Callable[[float, int, int], None],
        on_memory: Callable[[str], None],
    ) -> None:
        """Event loop: `on_call(seconds, batch size, pixels)` for every call, `on_memory(call)`, of
        metrics.DEVICE_CALLS, for each that ran out of memory."""
        self.model = model
        self.max_batch = max_batch  # may change between two steps
        self.inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()  # None: stop
        self._post, self._on_call, self._on_memory = post, on_call, on_memory
        self._encodes: deque[Encode] = deque()
        self._spare: deque[Spare] = deque()
        self._joining: deque[Run] = deque()
        self._runs: list[Running] = []
        self._sizes = CallSizes()
        self._calls = 0

    def run(self) -> None:
        """Until it is asked to stop. Raises DeviceFailed, or what a bug makes."""
        with torch.inference_mode():
            while self._receive():
                for run in [run for run in self._runs if run.handle.cancelled.is_set()]:
                    self._leave(run)
                while self._joining:
                    self._join(self._joining[0])
                    self._joining.popleft()  # only now: whatever ends the thread, the job is not lost
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
        """What was sent and is not done, once `run` has ended."""
        left: list[Job] = [*self._encodes, *self._spare, *self._joining, *(run.handle for run in self._runs)]
        while not self.inbox.empty():
            if (job := self.inbox.get()) is not None:
                left.append(job)
        return left

    def _receive(self) -> bool:
        """Takes in what was sent; waits for something when there is nothing to do. False: stop."""
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
        except Exception as error:  # whatever it is, it belongs to this request and not to the loop
            self._refuse(job, error)
            return
        timings = Timings(queue=started - job.posted, encode=time.perf_counter() - started)
        self._post(resolve, job.future, (text, timings), None)

    def _do_spare(self, job: Spare) -> None:
        if job.future.cancelled():
            return
        try:
            result = self._alone("spare", job.work, tries=1)  # it may have done a part
            self.model.synchronize()  # else what follows would wait for it
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
        device.last_step = self._calls  # it waits from now on: behind those that were there before
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
        """One denoiser call, and each run's own step. Returns those that made it, and whether memory sufficed.

        A run that failed by itself is dropped; any other that has not advanced stands where it stood. Raises what
        fails all of them.
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
        """Tells what went wrong. Raises DeviceFailed if that is the end of all."""
        self._post(job.give_up, error)
        if isinstance(error, DeviceFailed):
            raise error

    def _shared(self, runs: int, work: Callable[[], T]) -> T:
        """What `work` for so many runs returns. Raises _TooLarge where several of them ran out of memory."""
        if runs == 1:
            return self._alone("step", work)
        try:
            return self._alone("step", work, tries=1)
        except DeviceOutOfMemory:
            raise _TooLarge from None

    def _alone(self, call: str, work: Callable[[], T], tries: int = 2) -> T:
        """What `work` returns. Out of memory it is tried once more, after torch has given back what it keeps.

        Raises DeviceOutOfMemory, DeviceFailed, or what `work` raises.
        """
        for _ in range(tries):
            try:
                return work()
            except Exception as error:
                if is_fatal(error, self.model.device):
                    raise DeviceFailed(f"the device failed: {str(error).strip().splitlines()[0]}") from None
                if not is_out_of_memory(error):
                    raise
            # Out of the handler: only now is the traceback gone, and with it the tensors of the call that failed.
            self._post(self._on_memory, call)
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()
        raise DeviceOutOfMemory("the device is out of memory")
