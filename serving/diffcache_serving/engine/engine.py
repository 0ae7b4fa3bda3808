"""The device thread and its step loop, seen from the event loop as `encode` and `run`.

Requests go in through a queue, results come out through `call_soon_threadsafe`; the device thread awaits nothing and
does no I/O. Every running request stands at its own step; each turn of the loop makes one denoiser call for those that
can share it. Between two calls: cancellations, joins, then at most one encode and one decode, so that neither a crowd
of newcomers nor of finishers stops the others. Spare work is done where no request is in the loop, a piece at a time.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
from PIL import Image

from diffcache_core.generation import GenerationRequest
from diffcache_serving.cache.found import CapturedState, Found
from diffcache_serving.engine.adapter import StableDiffusion, TextEncoding
from diffcache_serving.engine.batch import next_batch
from diffcache_serving.engine.run import DeviceRun
from diffcache_serving.errors import DeviceOutOfMemory as DeviceOutOfMemory

T = TypeVar("T")


class EngineStopped(RuntimeError):
    """The server is shutting down and gives this run up."""


@dataclass
class Timings:
    """Seconds of one run. `queue` is all waiting for the device, over encode, steps and decode."""

    queue: float = 0.0
    encode: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0


@dataclass(eq=False)
class _Encode:
    request: GenerationRequest
    future: asyncio.Future[tuple[TextEncoding, Timings]]
    posted: float = field(default_factory=time.perf_counter)


@dataclass(eq=False)
class _Spare:
    work: Callable[[], Any]
    between_steps: bool
    future: asyncio.Future[Any]


class Run:
    """One request in the step loop. An async context manager: leaving it cancels what is left to do."""

    def __init__(
        self,
        engine: Engine,
        request: GenerationRequest,
        text: TextEncoding,
        found: Found,
        keep: tuple[int, ...],
        on_step: Callable[[], None],
    ) -> None:
        self.request, self.text, self.found, self.keep = request, text, found, keep
        self.timings = Timings()
        self.states: list[CapturedState] = []  # filled when the picture is there
        self.flagged = False
        self.cancelled = threading.Event()
        self.device: DeviceRun | None = None  # device thread only, as the next two
        self.waiting_since = time.perf_counter()
        self.steps_started = 0.0
        self._engine = engine
        self._on_step = on_step
        self._steps: asyncio.Queue[int | None] = asyncio.Queue()  # None: no further step will come
        self._done: asyncio.Future[Image.Image] = engine.loop.create_future()

    async def __aenter__(self) -> Self:
        self._engine.start(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancelled.set()
        if self._done.done() and not self._done.cancelled():
            self._done.exception()  # seen: whoever left early does not want to be told by the garbage collector
        else:
            self._done.cancel()

    async def image(self) -> Image.Image:
        """Raises DeviceOutOfMemory, EngineStopped, or whatever went wrong on the device."""
        return await self._done

    async def progress(self) -> AsyncIterator[int]:
        """Steps done or skipped so far, each time that changes, until the last step is done."""
        while (step := await self._steps.get()) is not None:
            yield step

    def stepped(self, i: int) -> None:
        """Event loop: one step was made."""
        self._on_step()
        self._steps.put_nowait(i)

    def finished(self, image: Image.Image | None, error: BaseException | None) -> None:
        """Event loop: there is a picture, or there never will be."""
        self._steps.put_nowait(None)
        if self._done.done():
            return
        if error is not None:
            self._done.set_exception(error)
        else:
            assert image is not None
            self._done.set_result(image)


class Engine:
    """Owns the device thread."""

    def __init__(
        self, model: StableDiffusion, max_batch: int, on_call: Callable[[float, int], None] = lambda seconds, size: None
    ) -> None:
        """`on_call(seconds, batch size)` is told of every denoiser call, on the event loop."""
        self.model = model
        self.loop = asyncio.get_running_loop()
        self.max_batch, self._on_call = max_batch, on_call  # may change between two steps
        self._inbox: queue.SimpleQueue[_Encode | _Spare | Run | None] = queue.SimpleQueue()
        self._encodes: deque[_Encode] = deque()
        self._spare: deque[_Spare] = deque()
        self._runs: list[Run] = []
        self._calls = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._step_loop, name="device", daemon=True)
        self._thread.start()

    async def encode(self, request: GenerationRequest) -> tuple[TextEncoding, Timings]:
        """Conditioning and key of a request, and how long that took and waited."""
        if self._stopping:
            raise EngineStopped
        job = _Encode(request, self.loop.create_future())
        self._inbox.put(job)
        return await job.future

    async def spare(self, work: Callable[[], T], *, between_steps: bool = False) -> T:
        """Calls `work` on the device thread when no request is encoded, denoised or decoded, or `between_steps` of
        those that are; raises what it raises.

        A request that arrives meanwhile waits until `work` returns, so it should take no longer than a step. It is in
        no count of steps. Cancelling drops it if it has not begun.
        """
        if self._stopping:
            raise EngineStopped
        job = _Spare(work, between_steps, self.loop.create_future())
        self._inbox.put(job)
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
        """A run to be entered with `async with`; `keep` lists the steps at which to leave `Trajectory` states."""
        return Run(self, request, text, found, keep, on_step)

    def start(self, run: Run) -> None:
        if self._stopping:
            raise EngineStopped
        self._inbox.put(run)

    async def stop(self) -> None:
        """Gives up whatever still runs (EngineStopped) and ends the device thread."""
        self._stopping = True
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    # ---- device thread -------------------------------------------------------------------------------------------

    def _step_loop(self) -> None:
        with torch.inference_mode():
            while self._receive():
                self._runs = [run for run in self._runs if not run.cancelled.is_set()]
                if self._encodes:
                    self._encode(self._encodes.popleft())
                denoised = next((run for run in self._runs if run.device and run.device.is_denoised), None)
                if denoised is not None:
                    self._finish(denoised)
                running = [run for run in self._runs if run.device and not run.device.is_denoised]
                if running:
                    self._step(running)
                if self._spare and (self._spare[0].between_steps or not (self._runs or self._encodes)):
                    self._do_spare(self._spare.popleft())
        for future in [job.future for job in self._encodes] + [job.future for job in self._spare]:
            self._post(_resolve, future, None, EngineStopped())
        for run in self._runs:
            self._post(run.finished, None, EngineStopped())

    def _receive(self) -> bool:
        """Takes in what was sent; waits for something when there is nothing to do. False: stop."""
        idle = not (self._runs or self._encodes or self._spare)
        while idle or not self._inbox.empty():
            message = self._inbox.get()
            idle = False
            if message is None:
                return False
            if isinstance(message, _Encode):
                self._encodes.append(message)
            elif isinstance(message, _Spare):
                self._spare.append(message)
            elif not message.cancelled.is_set():
                self._join(message)
        return True

    def _encode(self, job: _Encode) -> None:
        started = time.perf_counter()
        if job.future.cancelled():
            return
        try:
            text = self.model.encode(job.request)
            timings = Timings(queue=started - job.posted, encode=time.perf_counter() - started)
            self._post(_resolve, job.future, (text, timings), None)
        except Exception as error:  # whatever it is, it belongs to this request and not to the loop
            self._post(_resolve, job.future, None, _translated(error))

    def _do_spare(self, job: _Spare) -> None:
        if job.future.cancelled():
            return
        try:
            result = job.work()
            self.model.synchronize()  # else what follows would wait for it
            self._post(_resolve, job.future, result, None)
        except Exception as error:
            self._post(_resolve, job.future, None, _freed(error))

    def _join(self, run: Run) -> None:
        self._runs.append(run)
        try:
            run.device = DeviceRun(self.model, run.request, run.text, run.found, run.keep)
            run.device.last_step = self._calls  # it waits since now: behind those who were there before
        except Exception as error:
            self._fail([run], error)

    def _step(self, running: list[Run]) -> None:
        runs_of = {run.device: run for run in running if run.device}
        batch = next_batch(list(runs_of), self.max_batch)
        runs = [runs_of[device] for device in batch]
        self._calls += 1
        started = time.perf_counter()
        for run in runs:
            if not run.steps_started:
                run.timings.queue += started - run.waiting_since
                run.steps_started = started
        try:
            inputs, timesteps = zip(*(device.denoiser_input() for device in batch), strict=True)
            outputs = self.model.predict(inputs, timesteps, [device.text for device in batch])
            for device, output in zip(batch, outputs, strict=True):
                device.advance(output)
                device.last_step = self._calls
            self.model.synchronize()
        except Exception as error:
            self._fail(runs, error)
            return
        ended = time.perf_counter()
        self._post(self._on_call, ended - started, len(batch))
        for device, run in zip(batch, runs, strict=True):
            if device.is_denoised:
                run.timings.denoise = ended - run.steps_started
                run.waiting_since = ended
            self._post(run.stepped, device.i)

    def _finish(self, run: Run) -> None:
        assert run.device is not None
        started = time.perf_counter()
        run.timings.queue += started - run.waiting_since
        try:
            image, run.flagged = run.device.finish()
        except Exception as error:
            self._fail([run], error)
            return
        run.timings.decode = time.perf_counter() - started
        run.states = run.device.captured
        self._runs.remove(run)
        self._post(run.finished, image, None)

    def _fail(self, runs: list[Run], error: Exception) -> None:
        translated = _freed(error)
        for run in runs:
            self._runs.remove(run)
            self._post(run.finished, None, translated)

    def _post(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is closed: the process is going, nobody waits any more
            self._stopping = True


def _resolve(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def _freed(error: Exception) -> Exception:
    """The translated error; after running out of memory what torch holds for later is given up."""
    translated = _translated(error)
    if isinstance(translated, DeviceOutOfMemory) and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return translated


def _translated(error: Exception) -> Exception:
    """Running out of memory as one type; torch says it in several."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return DeviceOutOfMemory("the device is out of memory")
    return error
