"""What is timed, one request at a time: stock diffusers, ours, and caches that differ in their setup."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from benchmarks.comparison.rows import OURS, Drawn
from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import LCBFU, Policy
from diffcache_core.cache.resume import Levels
from diffcache_core.cache.states import StateKind
from diffcache_core.generation import CacheMode, GenerationRequest, ImageFormat, Result
from diffcache_core.resource_to_config import LITE_MAX_ENTRIES
from diffcache_serving.cache.cache import Cache
from diffcache_serving.cache.index import LayeredIndex
from diffcache_serving.cache.ledger_sqlite import SqliteLedger
from diffcache_serving.cache.milvus import MilvusIndex
from diffcache_serving.cache.milvus_lite import MilvusLite
from diffcache_serving.cache.store import StateStore
from diffcache_serving.engine.engine import Engine, Run
from diffcache_serving.engine.families.stable_diffusion.model import StableDiffusion
from diffcache_serving.engine.loading import LoadedModel
from diffcache_serving.engine.schedulers.schedule import build_scheduler
from diffcache_serving.generate import Generator
from diffcache_serving.images import compress
from diffcache_serving.metrics import Metrics
from diffcache_serving.queueing import StepQueue

UNLIMITED_BYTES = 2**40


class System(Protocol):
    async def draw(self, request: GenerationRequest) -> Drawn: ...

    async def settle(self) -> float:
        """Waits for what goes on after the answer; seconds."""


class Stock:
    """StableDiffusionPipeline as its users call it, and a PNG of the picture, which ours delivers too."""

    def __init__(self, model: LoadedModel) -> None:
        diffusion = model.diffusion
        assert isinstance(diffusion, StableDiffusion)
        pipe = diffusion.pipe
        scheduler = build_scheduler(diffusion.scheduler, pipe.scheduler.config)
        self._pipe = type(pipe)(**pipe.components | {"scheduler": scheduler}, requires_safety_checker=False)
        self._pipe.set_progress_bar_config(disable=True)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stock")  # ours has a thread of its own too

    async def draw(self, request: GenerationRequest) -> Drawn:
        started = time.perf_counter()
        image = await asyncio.get_running_loop().run_in_executor(self._thread, self._generate, request)
        return Drawn(np.asarray(image), request.steps, Result.BYPASS, seconds=time.perf_counter() - started)

    async def settle(self) -> float:
        return 0.0

    def _generate(self, request: GenerationRequest) -> Image.Image:
        image: Image.Image = self._pipe(
            request.prompt,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            width=request.width,
            height=request.height,
            generator=torch.Generator("cpu").manual_seed(request.seed),
        ).images[0]
        compress(image, ImageFormat.PNG)
        return image


class Ours:
    """The real way of a request, in one cache mode."""

    def __init__(self, generator: Generator, mode: CacheMode) -> None:
        self.generator, self._mode = generator, mode

    async def draw(self, request: GenerationRequest) -> Drawn:
        runs: list[Run] = []
        started = time.perf_counter()
        done = await self.generator.generate(
            replace(request, cache_mode=self._mode), lambda run, found: runs.append(run)
        )
        seconds = time.perf_counter() - started
        fetch = done.seconds["look_up"] + done.seconds["load"] if self._mode.reads else None
        return Drawn(
            np.asarray(Image.open(io.BytesIO(done.image))),
            request.steps - done.steps_skipped,
            done.result,
            done.steps_skipped,
            done.similarity,
            seconds,
            fetch,
            runs[0].states[-1].tensors["latent"],
        )

    async def settle(self) -> float:
        started = time.perf_counter()
        await self.generator.cache.settle()
        return time.perf_counter() - started


@dataclass(frozen=True)
class CacheSetup:
    """What distinguishes the caches of the table."""

    levels: Levels
    policy: Policy = field(default_factory=LCBFU)
    entries: int = LITE_MAX_ENTRIES
    has_admission: bool = True  # False: keeps every result, as a plain LRU cache does


@dataclass(frozen=True)
class Stage:
    """What the systems of one run share."""

    model: LoadedModel
    engine: Engine
    lite: MilvusLite
    folder: Path


@asynccontextmanager
async def serving(stage: Stage, name: str, setup: CacheSetup) -> AsyncIterator[Generator]:
    """A Generator with a cache of its own, wired as the serving process wires it."""
    model, folder = stage.model, stage.folder / name
    metrics = Metrics(model.name)
    ledger = await SqliteLedger.open(folder / "ledger.db", setup.policy)
    collection = f"bench_{ledger.id[:12]}"
    index = LayeredIndex(
        MilvusIndex(stage.lite.uri, collection, model.diffusion.key_dim),
        lambda operation, error: metrics.index_errors.labels(operation).inc(),
    )
    identity = model.identity(shared=False)
    budget = Budget(UNLIMITED_BYTES, setup.entries)
    store = StateStore(folder / "states")
    cache = Cache(
        ledger,
        store,
        index,
        metrics,
        identity,
        setup.levels,
        StateKind.CLEAN,
        budget,
        has_admission=setup.has_admission,
    )
    await cache.repair()
    try:
        yield Generator(StepQueue(10**9), stage.engine, cache, [metrics])
    finally:
        await cache.close()


Tell = Callable[[int, int], None]  # how many requests are done, of how many


@dataclass
class StepClock:
    """Seconds of denoiser calls with one run in them."""

    seconds: list[float] = field(default_factory=list)

    def measured(self, seconds: float, size: int, pixels: int) -> None:
        if size == 1:
            self.seconds.append(seconds)


@dataclass(frozen=True)
class Pass:
    """All timed systems over the stream once."""

    drawn: dict[str, list[Drawn]]
    keep_seconds: list[float]  # of ours, after each answer
    step_seconds: float  # median of a denoiser step alone


async def run_pass(
    systems: dict[str, System],
    requests: Sequence[GenerationRequest],
    random: np.random.Generator,
    clock: StepClock,
    tell: Tell,
) -> Pass:
    """Request by request, every system in random order."""
    clock.seconds.clear()
    drawn: dict[str, list[Drawn]] = {name: [] for name in systems}
    keeps = []
    names = list(systems)
    for i, request in enumerate(requests):
        for j in random.permutation(len(names)):
            drawn[names[j]].append(await systems[names[j]].draw(request))
            kept = await systems[names[j]].settle()
            if names[j] == OURS:
                keeps.append(kept)
        tell(i + 1, len(requests))
    return Pass(drawn, keeps, float(np.median(clock.seconds)))
