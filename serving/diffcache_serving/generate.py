"""Follows one request from its arrival to its picture."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from diffcache_core.generation import GenerationRequest, Result
from diffcache_serving.cache.cache import Cache
from diffcache_serving.engine.engine import Engine, Run, Timings
from diffcache_serving.images import compress
from diffcache_serving.queueing import StepQueue
from diffcache_serving.values.errors import NotFinite
from diffcache_serving.values.found import Exact, Found, Miss
from diffcache_serving.values.request_events import Answered, RequestListener, RequestObserver


@dataclass(frozen=True)
class Generation:
    """A picture, and how it was made."""

    image: bytes
    request: GenerationRequest
    result: Result
    similarity: float | None
    steps_skipped: int
    depth: int
    parent: str  # entry id
    entry: str  # entry id; empty if the picture is not kept
    flagged: bool  # by the safety checker: the picture is black
    dropped_tokens: int  # tokens of the prompt that do not fit into the model's tokenizer
    negative_dropped_tokens: int
    seconds: dict[str, float]  # by phase, see metrics.PHASES
    total_seconds: float


class Generator:
    """Ties queue, engine and cache together."""

    def __init__(
        self, queue: StepQueue, engine: Engine, cache: Cache, observers: Sequence[RequestObserver] = ()
    ) -> None:
        self.queue, self.engine, self.cache, self.observers = queue, engine, cache, observers

    async def generate(
        self, request: GenerationRequest, on_run: Callable[[Run, Found], None] = lambda run, found: None
    ) -> Generation:
        """Makes one picture. Calls `on_run(run, found)` when the run starts, so the caller can follow its progress.

        Raises QueueFull, DeviceOutOfMemory, NotFinite or EngineStopped. Cancelling the call stops the run at the next
        step.
        """
        clock = _Clock()
        listeners = [observer.arrived(request) for observer in self.observers]
        with self.queue.reserve(request.steps, request.pixels) as place, _watching_for_nan(listeners):
            text, waited = await self.engine.encode(request)
            if not text.has_key:
                _each(listeners, lambda listener: listener.not_finite("key"))
            query = self.cache.query(request, text)
            _each(listeners, lambda listener: listener.encoded(query))
            with clock.measure("look_up"):
                found = await self.cache.look_up(query)
            place.shrink(request.steps - found.k)
            keep = self.cache.checkpoints(request, found)
            async with self.engine.run(request, text, found, keep=keep, on_step=place.step) as run:
                place.until(run.gone)
                on_run(run, found)
                image = await self._image(run)
        entry = found.parent if isinstance(found, Exact) else ""
        if not run.flagged:
            entry = self.cache.keep(query, found, run.states) or entry  # queued, returns at once
        _each(listeners, lambda listener: listener.drawn(run.states, entry, flagged=run.flagged))
        with clock.measure("compress"):
            data = await asyncio.to_thread(compress, image, request.format)
        seconds = _seconds_by_phase(clock, waited, run, found)
        answered = Answered(query, found, image, run.flagged, seconds, clock.total)
        _each(listeners, lambda listener: listener.answered(answered))
        return Generation(
            data,
            request,
            found.result,
            found.similarity,
            found.k,
            found.depth,
            found.parent,
            entry,
            run.flagged,
            text.dropped,
            text.negative_dropped,
            seconds,
            answered.total_seconds,
        )

    async def _image(self, run: Run) -> Image.Image:
        try:
            return await run.image()
        except NotFinite:
            self.cache.distrust(run.found)
            raise


class _Clock:
    """Measures the seconds of the phases that run on the event loop, and of the whole request."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def measure(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[phase] = time.perf_counter() - started

    @property
    def total(self) -> float:
        return time.perf_counter() - self._started


def _seconds_by_phase(clock: _Clock, waited: Timings, run: Run, found: Found) -> dict[str, float]:
    """Returns seconds by phase, in the order of metrics.PHASES. `waited` holds the timings of the encoding."""
    load = 0.0 if isinstance(found, Miss) else found.load_seconds
    return {
        "queue": waited.queue + run.timings.queue,
        "encode": waited.encode,
        "look_up": clock.seconds["look_up"] - load,
        "load": load,
        "denoise": run.timings.denoise,
        "decode": run.timings.decode,
        "compress": clock.seconds["compress"],
    }


@contextlib.contextmanager
def _watching_for_nan(listeners: list[RequestListener]) -> Iterator[None]:
    try:
        yield
    except NotFinite as error:
        part = error.part
        _each(listeners, lambda listener: listener.not_finite(part))
        raise


def _each(listeners: list[RequestListener], tell: Callable[[RequestListener], None]) -> None:
    for listener in listeners:
        tell(listener)
