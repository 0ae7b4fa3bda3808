"""The way of one request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from diffcache_core.generation import GenerationRequest, Result
from diffcache_serving.cache.cache import Cache
from diffcache_serving.cache.found import Exact, Found, Miss
from diffcache_serving.engine.adapter import TextEncoding
from diffcache_serving.engine.engine import Engine, Run, Timings
from diffcache_serving.errors import NotFinite
from diffcache_serving.images import compress
from diffcache_serving.metrics import Metrics
from diffcache_serving.queueing import StepQueue
from diffcache_serving.shadow.plan import Answered
from diffcache_serving.shadow.shadows import Shadows
from diffcache_serving.shadow_caches.feed import Feed


@dataclass(frozen=True)
class Generation:
    """A picture and the truth about it."""

    image: bytes
    request: GenerationRequest
    result: Result
    similarity: float | None
    steps_skipped: int
    depth: int
    parent: str  # entry id
    entry: str  # entry id; empty if it is not kept
    flagged: bool
    dropped_tokens: int  # of the prompt, beyond what the model's tokenizer holds
    negative_dropped_tokens: int
    seconds: dict[str, float]  # by phase, see metrics.PHASES
    total_seconds: float


class Generator:
    """Ties queue, engine and cache together."""

    def __init__(
        self,
        queue: StepQueue,
        engine: Engine,
        cache: Cache,
        metrics: Metrics,
        shadows: Shadows | None = None,
        feed: Feed | None = None,
    ) -> None:
        """`shadows` measures quality beside the requests, `feed` tells the shadow caches of them."""
        self.queue, self.engine, self.cache, self.metrics, self.shadows = queue, engine, cache, metrics, shadows
        self.feed = feed

    async def generate(
        self, request: GenerationRequest, on_run: Callable[[Run, Found], None] = lambda run, found: None
    ) -> Generation:
        """One picture. `on_run` gets the run when it starts, to follow its progress.

        Raises QueueFull, DeviceOutOfMemory, NotFinite or EngineStopped. Cancelling it stops the run at the next step.
        """
        started = time.perf_counter()
        arrival = self.shadows.arrive(request) if self.shadows else None
        with self.queue.reserve(request.steps, request.pixels) as place:
            text, timings = await self._encode(request)
            query = self.cache.query(request, text)
            ticket = self.feed.asked(query) if self.feed else ""
            looked = time.perf_counter()
            found = await self.cache.look_up(query)
            look_up_seconds = time.perf_counter() - looked
            place.shrink(request.steps - found.k)
            keep = self.cache.checkpoints(request, found)
            async with self.engine.run(request, text, found, keep=keep, on_step=place.step) as run:
                place.until(run.gone)
                on_run(run, found)
                image = await self._image(run)
        entry = found.parent if isinstance(found, Exact) else ""
        if not run.flagged:
            entry = self.cache.keep(query, found, run.states) or entry  # queued, returns at once
        if self.feed:
            self.feed.answered(ticket, run.states, entry, may_keep=not run.flagged)
        compressing = time.perf_counter()
        data = await asyncio.to_thread(compress, image, request.format)
        load_seconds = 0.0 if isinstance(found, Miss) else found.load_seconds
        seconds = {
            "queue": timings.queue + run.timings.queue,
            "encode": timings.encode,
            "look_up": look_up_seconds - load_seconds,
            "load": load_seconds,
            "denoise": run.timings.denoise,
            "decode": run.timings.decode,
            "compress": time.perf_counter() - compressing,
        }
        generation = Generation(
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
            time.perf_counter() - started,
        )
        self.metrics.answered(found.result, seconds, generation.total_seconds, request.steps, found.k)
        if self.shadows and arrival:
            self.shadows.answer(arrival, Answered(query, found, image, run.flagged))
        return generation

    async def _encode(self, request: GenerationRequest) -> tuple[TextEncoding, Timings]:
        try:
            text, timings = await self.engine.encode(request)
        except NotFinite as error:
            self.metrics.not_finite.labels(error.part).inc()
            raise
        if not text.has_key:
            self.metrics.not_finite.labels("key").inc()
        return text, timings

    async def _image(self, run: Run) -> Image.Image:
        try:
            return await run.image()
        except NotFinite as error:
            self.metrics.not_finite.labels(error.part).inc()
            self.cache.distrust(run.found)
            raise
