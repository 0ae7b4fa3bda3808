"""Ours beside the stock diffusers pipeline and the simple controls, on the bundled model, in one run.

    python benchmarks/serving.py                   # 240 requests at 8 and at 5 steps, about half an hour on two cores
    python benchmarks/serving.py --smoke           # every row, numbers too small to mean anything

A stream of requests (benchmarks/stream.py) is served once to caches that have seen nothing and once more, the very same
requests, to the warm caches. For each request every timed system draws the picture in turn, in random order, so a
machine that gets slower gets slower for all. Timed: prompt in, PNG out, one request at a time. What a cache writes
after the answer is waited for before the next picture begins, untimed, and told below the table.

Timed systems
  stock          diffusers' StableDiffusionPipeline on the same loaded weights, DDIM
  ours, BYPASS   our Generator, Engine and step loop, told to leave the cache alone
  ours           the same with its cache: Ledger, StateStore, LayeredIndex over Milvus Lite
  exact-match    our cache with an empty level table: only the same prompt, seed and N again is a hit
  ours, tight    our cache with room for a fraction of the stream; LRU, tight: least recently used at the same capacity

Controls, at the total steps that ours ran (drawn in batches, so their throughput is computed from steps: ~)
  fewer steps              no cache; two neighbouring N, mixed at random so that the total is equal
  fewer steps, exact       an exact-match cache, and fewer steps for what it misses; total equal
  late start               each request begins at the k that ours was granted, from its own noise, without a state
  random parent            each request resumes at that k from a random earlier picture's latent and its own noise
  N - k steps              each request runs as many uniform steps as ours left it
In the last three and in `fewer steps, exact` an exact repeat is answered from what the row itself drew before.
"""

# ruff: noqa: E402 -- OpenMP reads its settings when torch is imported, and `benchmarks` needs the repository's root

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from diffcache_serving.__main__ import set_openmp_defaults

set_openmp_defaults()
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.stream import (
    POOL_SIZE,
    REPEAT_SHARE,
    SAME_SEED_SHARE,
    Stream,
    StreamOptions,
    build_pool,
    build_stream,
    load_bundled,
    measure,
    statistics_table,
)
from diffcache_core.generation import CacheMode, GenerationRequest, ImageFormat, Result
from diffcache_core.policies import LCBFU, LRU, Policy
from diffcache_core.resume import Levels
from diffcache_core.serving_config import LITE_MAX_ENTRIES
from diffcache_core.states import StateKind
from diffcache_serving.cache.cache import Cache
from diffcache_serving.cache.found import Found, Miss, Resume
from diffcache_serving.cache.identity import CacheIdentity
from diffcache_serving.cache.index import LayeredIndex
from diffcache_serving.cache.ledger import Budget, Ledger
from diffcache_serving.cache.milvus import MilvusIndex
from diffcache_serving.cache.milvus_lite import MilvusLite
from diffcache_serving.cache.store import StateStore
from diffcache_serving.engine.adapter import StableDiffusion, TextEncoding
from diffcache_serving.engine.batch import next_batch
from diffcache_serving.engine.engine import Engine, Run
from diffcache_serving.engine.loading import BUNDLED, LoadedModel
from diffcache_serving.engine.run import DeviceRun
from diffcache_serving.engine.schedulers import build_scheduler
from diffcache_serving.generate import Generator
from diffcache_serving.images import compress
from diffcache_serving.logs import configure_logs
from diffcache_serving.metrics import INDEX_OPERATIONS, Metrics
from diffcache_serving.queueing import StepQueue

STOCK, BYPASS, OURS, EXACT = "stock", "ours, BYPASS", "ours", "exact-match"
TIGHT, LRU_TIGHT = "ours, tight", "LRU, tight"
FEWER, FEWER_EXACT = "fewer steps", "fewer steps, exact"
LATE, RANDOM, UNIFORM = "late start", "random parent", "N - k steps"
TIMED = (STOCK, BYPASS, OURS, EXACT, TIGHT, LRU_TIGHT)
CONTROLS = (FEWER, FEWER_EXACT, LATE, RANDOM, UNIFORM)
ROWS = TIMED + CONTROLS
PASSES = ("first-seen", "replay")

BATCH = 16
"""Runs in one denoiser call of the controls: 28 ms a sample and step instead of 43 alone (measured)."""

MAX_SLOWER = 0.03  # what BYPASS may cost against stock
WARM_UP = 3  # requests that stock and BYPASS draw before anything is timed
UNLIMITED_BYTES = 2**40


@dataclass(frozen=True)
class Plan:
    """What one run of the benchmark measures."""

    requests: int = 240
    steps: tuple[int, ...] = (8, 5)
    seed: int = 0
    pool: int = POOL_SIZE
    repeat_share: float = REPEAT_SHARE
    same_seed_share: float = SAME_SEED_SHARE
    tight: int = 60  # entries; a quarter of the default stream, so that both tight caches evict
    probes: int = 8  # prompts of the diversity measurement
    probe_seeds: int = 4
    resamples: int = 4000  # of the bootstrap; more only steadies the third digit

    def smoke(self) -> Plan:
        """Every row and every line of code in well under a minute."""
        return replace(
            self, requests=5, steps=(4,), pool=100, repeat_share=0.3, tight=2, probes=1, probe_seeds=2, resamples=100
        )


@dataclass(frozen=True)
class Drawn:
    """One picture of one system."""

    picture: np.ndarray  # (height, width, 3) uint8
    steps_run: int
    result: Result
    k: int = 0
    similarity: float | None = None
    seconds: float | None = None  # None: drawn in a batch
    fetch_seconds: float | None = None  # look-up and load; None: made none
    latent: torch.Tensor | None = None  # the final one, of ours


# ---- statistics: pure ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(statistic: Callable[[np.ndarray], np.ndarray], n: int, resamples: int, seed: int = 0) -> Interval:
    """95% percentile interval of `statistic` over resampled requests; paired, as all systems share the indices.

    Args:
        statistic: takes indices (resamples, n) and returns one figure a row.
        n: requests.
        resamples: rows.
        seed: of the resampling.
    """
    indices = np.random.default_rng(seed).integers(n, size=(resamples, n))
    low, high = np.percentile(statistic(indices), (2.5, 97.5))
    return Interval(float(statistic(np.arange(n)[None])[0]), float(low), float(high))


def ratio_of_means(top: np.ndarray, bottom: np.ndarray, resamples: int) -> Interval:
    return bootstrap(lambda i: top[i].mean(axis=1) / bottom[i].mean(axis=1), len(top), resamples)


def mean_difference(one: np.ndarray, other: np.ndarray, resamples: int) -> Interval:
    return bootstrap(lambda i: (one - other)[i].mean(axis=1), len(one), resamples)


def median_ratio(top: np.ndarray, bottom: np.ndarray, resamples: int) -> Interval:
    """Median of the ratios request by request."""
    return bootstrap(lambda i: np.median((top / bottom)[i], axis=1), len(top), resamples)


def share_steps(total: int, requests: int, most: int, random: np.random.Generator) -> list[int]:
    """Steps of each request, two neighbouring numbers in random order, which add up to `total`."""
    few, rest = divmod(total, requests)
    if few < 1 or few + (rest > 0) > most:
        raise ValueError(f"{total} steps cannot be shared among {requests} requests of 1 to {most} steps")
    return [few + 1 if i < rest else few for i in random.permutation(requests)]


def pairwise_rms(pictures: Sequence[np.ndarray]) -> float:
    """Mean RMS distance of all pairs, in grey levels of 255."""
    distances = [
        float(np.sqrt(np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2)))
        for a, b in itertools.combinations(pictures, 2)
    ]
    return sum(distances) / len(distances)


# ---- systems that are timed ----------------------------------------------------------------------------------------


class System(Protocol):
    async def draw(self, request: GenerationRequest) -> Drawn: ...

    async def settle(self) -> float:
        """Waits for what goes on after the answer; seconds."""


class Stock:
    """StableDiffusionPipeline as its users call it, and a PNG of the picture, which ours delivers too."""

    def __init__(self, model: LoadedModel) -> None:
        pipe = model.diffusion.pipe
        scheduler = build_scheduler(model.diffusion.scheduler, pipe.scheduler.config)
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


class CacheWithoutAdmission(Cache):
    """Keeps every result, as a plain LRU cache does: it never calls itself full, the ledger still evicts."""

    def _is_full(self) -> bool:
        return False


@dataclass(frozen=True)
class CacheSetup:
    """What distinguishes the caches of the table."""

    levels: Levels
    policy: Policy = field(default_factory=LCBFU)
    entries: int = LITE_MAX_ENTRIES
    kind: type[Cache] = Cache


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
    ledger = await Ledger.open(folder / "ledger.db", setup.policy)
    collection = f"bench_{ledger.id[:12]}"
    index = LayeredIndex(
        MilvusIndex(stage.lite.uri, collection, model.diffusion.key_dim),
        lambda operation, error: metrics.index_errors.labels(operation).inc(),
    )
    identity = CacheIdentity(
        model_name=model.name,
        model=model.fingerprint,
        embedder=model.embedder,
        dtype=str(model.diffusion.dtype).removeprefix("torch."),
        scheduler=lambda: model.diffusion.schedule(1, 0).digest,
        shared=False,
    )
    budget = Budget(UNLIMITED_BYTES, setup.entries)
    store = StateStore(folder / "states")
    cache = setup.kind(ledger, store, index, metrics, identity, setup.levels, StateKind.CLEAN, budget)
    await cache.repair()
    try:
        yield Generator(StepQueue(10**9), stage.engine, cache, metrics)
    finally:
        await cache.close()


Tell = Callable[[int, int], None]


@dataclass
class StepClock:
    """Seconds of denoiser calls with one run in them."""

    seconds: list[float] = field(default_factory=list)

    def measured(self, seconds: float, size: int) -> None:
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


# ---- controls, in batches ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A picture to be drawn: what the request starts from is in `found`."""

    request: GenerationRequest
    text: TextEncoding
    found: Found


def draw_batched(model: StableDiffusion, jobs: Sequence[Job]) -> list[Drawn]:
    """The pictures of `jobs`, with the serving process's own runs; several share a denoiser call."""
    with torch.inference_mode():
        runs = [DeviceRun(model, job.request, job.text, job.found, ()) for job in jobs]
        call = 0
        while waiting := [run for run in runs if not run.is_denoised]:
            call += 1
            batch = next_batch(waiting, BATCH)
            inputs, timesteps = zip(*(run.denoiser_input() for run in batch), strict=True)
            outputs = model.predict(inputs, timesteps, [run.text for run in batch])
            for run, output in zip(batch, outputs, strict=True):
                run.advance(output)
                run.last_step = call
        return [
            Drawn(
                np.asarray(model.decode(run.x)[0]),
                job.request.steps - job.found.k,
                job.found.result,
                job.found.k,
                job.found.similarity,
                latent=run.x,
            )
            for run, job in zip(runs, jobs, strict=True)
        ]


def late_start(model: StableDiffusion, request: GenerationRequest, k: int) -> Found:
    """From the request's own noise at step k. At full strength: scaled down to k's it scores no better (measured)."""
    return _resume(k, StateKind.TRAJECTORY, model.noise(request))


def parent_of(latent: torch.Tensor, k: int) -> Found:
    """From any latent, noised to k with the request's own noise."""
    return _resume(k, StateKind.CLEAN, latent)


def _resume(k: int, kind: StateKind, latent: torch.Tensor) -> Found:
    if k == 0:
        return Miss()
    return Resume(
        k=k,
        depth=1,
        parent="",
        similarity=0.0,
        granted_skip=0,
        kind=kind,
        own_run=kind is StateKind.TRAJECTORY,  # then the latent is taken as it is
        tensors={"latent": latent},
        load_seconds=0.0,
    )


Identity = tuple[str, int]  # prompt and seed; N is the same for all requests of a pass


@dataclass
class Controls:
    """Draws the controls of one N. What a row drew before, it answers an exact repeat with."""

    model: StableDiffusion
    seed: int
    memory: dict[str, dict[Identity, Drawn]] = field(default_factory=dict)
    parents: list[torch.Tensor] = field(default_factory=list)  # final latents of ours, oldest first

    def draw(
        self, requests: Sequence[GenerationRequest], texts: Sequence[TextEncoding], ours: Sequence[Drawn]
    ) -> dict[str, list[Drawn]]:
        """All rows for one pass. A row is absent when ours ran fewer steps than there are pictures."""
        random = np.random.default_rng(self.seed)
        total, n = sum(d.steps_run for d in ours), requests[0].steps
        rows: dict[str, list[Drawn]] = {}
        if total >= len(requests):
            shared = share_steps(total, len(requests), n, random)
            rows[FEWER] = draw_batched(self.model, [_with_steps(*j) for j in zip(requests, texts, shared, strict=True)])
        fresh = sum(d.result is not Result.EXACT for d in ours)
        few = iter(share_steps(total, fresh, n, random) if fresh else [])
        shared = [next(few) if d.result is not Result.EXACT else 0 for d in ours]
        earlier = self._earlier_parents(ours, random)
        starts: dict[str, Callable[[int], tuple[int, Found]]] = {
            FEWER_EXACT: lambda i: (shared[i], Miss()),
            LATE: lambda i: (n, late_start(self.model, requests[i], ours[i].k)),
            RANDOM: lambda i: (n, parent_of(earlier[i], ours[i].k)),
            UNIFORM: lambda i: (n - ours[i].k, Miss()),
        }
        todo = [i for i, d in enumerate(ours) if d.result is not Result.EXACT]
        for name, start in starts.items():
            jobs = [Job(replace(requests[i], steps=start(i)[0]), texts[i], start(i)[1]) for i in todo]
            drawn = dict(zip(todo, draw_batched(self.model, jobs), strict=True))
            rows[name] = self._with_repeats(name, requests, drawn)
        return rows

    def _with_repeats(self, name: str, requests: Sequence[GenerationRequest], drawn: dict[int, Drawn]) -> list[Drawn]:
        """The row, in order: what was drawn, and for the rest what the row drew for the same request before."""
        memory = self.memory.setdefault(name, {})
        row = []
        for i, request in enumerate(requests):
            identity = request.prompt, request.seed
            if i in drawn:
                memory[identity] = drawn[i]
                row.append(drawn[i])
            else:
                row.append(replace(memory[identity], steps_run=0, k=request.steps, result=Result.EXACT))
        return row

    def _earlier_parents(self, ours: Sequence[Drawn], random: np.random.Generator) -> list[torch.Tensor]:
        """For each request a random latent among those that ours had kept by then; its own where there is none."""
        chosen = []
        for drawn in ours:
            assert drawn.latent is not None
            pool = self.parents or [drawn.latent]
            chosen.append(pool[int(random.integers(len(pool)))])
            if drawn.result is not Result.EXACT:
                self.parents.append(drawn.latent)
        return chosen


def _with_steps(request: GenerationRequest, text: TextEncoding, steps: int) -> Job:
    return Job(replace(request, steps=steps), text, Miss())


# ---- quality and diversity -----------------------------------------------------------------------------------------


class Scorer:
    """Cosine of picture and prompt by the bundled CLIP."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer, CLIPModel

        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._clip = CLIPModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()

    def score(self, pictures: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        """(pictures,) cosines; each picture with its own prompt."""
        with torch.inference_mode():
            # The model was trained on pixels of -1 to 1 and on padded prompts with their mask.
            pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
            length = self._clip.config.text_config.max_position_embeddings
            tokens = self._tokenizer(
                list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
            )
            text = self._clip.text_projection(
                self._clip.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
            )
            image = self._clip.visual_projection(self._clip.vision_model(pixel_values=pixels).pooler_output)
            cosines: np.ndarray = torch.nn.functional.cosine_similarity(image, text).numpy()
        return cosines


@dataclass(frozen=True)
class Probes:
    """Requests of the diversity measurement, the seeds of one prompt next to each other."""

    requests: list[GenerationRequest]
    texts: list[TextEncoding]
    seeds: int

    def distances(self, drawn: Sequence[Drawn]) -> np.ndarray:
        """(prompts,) mean pairwise distance of one prompt's pictures."""
        groups = [drawn[i : i + self.seeds] for i in range(0, len(drawn), self.seeds)]
        return np.array([pairwise_rms([d.picture for d in group]) for group in groups])


def build_probes(
    model: StableDiffusion, requests: Sequence[GenerationRequest], plan: Plan, random: np.random.Generator
) -> Probes:
    """Prompts of the stream, each under fresh seeds; READ_ONLY, so the caches stay as the stream left them."""
    prompts = list(dict.fromkeys(request.prompt for request in requests))
    chosen = [prompts[i] for i in random.permutation(len(prompts))[: plan.probes]]
    probes = [
        replace(requests[0], prompt=prompt, seed=int(random.integers(2**31)), cache_mode=CacheMode.READ_ONLY)
        for prompt in chosen
        for _ in range(plan.probe_seeds)
    ]
    return Probes(probes, encode_all(model, probes), plan.probe_seeds)


async def draw_probes(
    systems: dict[str, System], controls: Controls, probes: Probes, mean_steps: dict[str, int]
) -> dict[str, list[Drawn]]:
    """The probes' pictures by row: real look-ups, drawn in batches; what misses is the uncached picture."""
    model = controls.model
    pairs = list(zip(probes.requests, probes.texts, strict=True))
    drawn = {BYPASS: draw_batched(model, [Job(r, t, Miss()) for r, t in pairs])}
    drawn[STOCK] = [await systems[STOCK].draw(r) for r in probes.requests]
    ks: list[int] = []
    for name in (OURS, EXACT, TIGHT, LRU_TIGHT):
        system = systems[name]
        assert isinstance(system, Ours)
        founds = [await system.generator.cache.look_up(r, t) for r, t in pairs]
        drawn[name] = _draw_found(model, probes, founds, drawn[BYPASS])
        ks = [found.k for found in founds] if name == OURS else ks
    random = np.random.default_rng(controls.seed)
    starts: dict[str, Callable[[GenerationRequest, int], Found]] = {
        LATE: lambda request, k: late_start(model, request, k),
        RANDOM: lambda request, k: parent_of(controls.parents[int(random.integers(len(controls.parents)))], k),
    }
    for name, start in starts.items():
        founds = [start(r, k) for (r, _), k in zip(pairs, ks, strict=True)]
        drawn[name] = _draw_found(model, probes, founds, drawn[BYPASS])
    drawn[UNIFORM] = draw_batched(model, [_with_steps(r, t, r.steps - k) for (r, t), k in zip(pairs, ks, strict=True)])
    for name, steps in mean_steps.items():
        drawn[name] = draw_batched(model, [_with_steps(r, t, steps) for r, t in pairs])
    return drawn


def _draw_found(
    model: StableDiffusion, probes: Probes, founds: Sequence[Found], uncached: Sequence[Drawn]
) -> list[Drawn]:
    jobs = zip(probes.requests, probes.texts, founds, strict=True)
    resumed = iter(draw_batched(model, [Job(r, t, f) for r, t, f in jobs if f.k]))
    return [next(resumed) if found.k else plain for found, plain in zip(founds, uncached, strict=True)]


def encode_all(model: StableDiffusion, requests: Sequence[GenerationRequest]) -> list[TextEncoding]:
    with torch.inference_mode():
        return [model.encode(request) for request in requests]


# ---- from pictures to figures --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowFigures:
    """One row of a table. None where a row has no such figure."""

    name: str
    is_timed: bool
    steps_run: int
    steps_saved_ratio: float
    exact: int
    approximate: int
    throughput: Interval | None  # times stock's
    computed_throughput: float | None  # of a control, from its steps
    requests_per_second: float | None
    quality: Interval  # ratio to BYPASS, all requests
    quality_resumed: Interval | None  # the same over the requests that ours resumed
    diversity: Interval  # ratio to uncached
    fetch_p50: float | None  # denoiser steps
    fetch_p95: float | None


@dataclass(frozen=True)
class LevelFigures:
    """The requests that ours resumed at one k: mean CLIPScore, and ours minus each control, paired."""

    k: int
    requests: int
    similarity_low: float
    similarity_high: float
    means: dict[str, float]
    differences: dict[str, Interval]  # absent with fewer than two requests


@dataclass(frozen=True)
class PassFigures:
    """One table: N and stream."""

    steps: int
    stream: str
    requests: int
    step_milliseconds: float  # median of one denoiser step alone, of this run
    bypass_time: Interval  # seconds of BYPASS / seconds of stock, median request
    identical: int  # pictures of BYPASS that equal stock's bit for bit
    keep_p50_steps: float  # what ours does after the answer, in denoiser steps
    failed_look_ups: int  # of all four caches; each became a miss
    rows: list[RowFigures]
    differences: dict[str, Interval]  # mean CLIPScore of ours minus each other row, all requests
    levels: list[LevelFigures]

    def row(self, name: str) -> RowFigures | None:
        return next((row for row in self.rows if row.name == name), None)


@dataclass(frozen=True)
class Measured:
    """Everything one pass left, before it becomes figures."""

    steps: int
    stream: str
    drawn: dict[str, list[Drawn]]
    scores: dict[str, np.ndarray]
    distances: dict[str, np.ndarray]
    keep_seconds: list[float]
    step_seconds: float
    failed_look_ups: int


def seconds_of(drawn: Sequence[Drawn]) -> np.ndarray:
    return np.array([d.seconds for d in drawn], float)


def steps_to_seconds(measured: Measured, drawn: Sequence[Drawn]) -> float:
    """What a control would take one request at a time: each request's BYPASS seconds of the same pass, shortened by the
    steps that it saves; an exact repeat as long as ours took for one."""
    full = seconds_of(measured.drawn[BYPASS])
    step_share = min(1.0, measured.steps * measured.step_seconds / float(np.median(full)))  # the rest: encode, decode
    exact = [d.seconds for d in measured.drawn[OURS] if d.result is Result.EXACT and d.seconds is not None]
    exact_seconds = float(np.median(exact)) if exact else 0.0
    return sum(
        exact_seconds if d.result is Result.EXACT else seconds * (1 - step_share * (1 - d.steps_run / measured.steps))
        for d, seconds in zip(drawn, full.tolist(), strict=True)
    )


def row_figures(measured: Measured, name: str, resamples: int) -> RowFigures:
    drawn, scores = measured.drawn[name], measured.scores
    stock = seconds_of(measured.drawn[STOCK])
    is_timed = name in TIMED
    resumed = np.array([i for i, d in enumerate(measured.drawn[OURS]) if d.result is Result.APPROXIMATE], int)
    fetch = [d.fetch_seconds / measured.step_seconds for d in drawn if d.fetch_seconds is not None]
    steps = measured.steps * len(drawn)
    run = sum(d.steps_run for d in drawn)
    return RowFigures(
        name=name,
        is_timed=is_timed,
        steps_run=run,
        steps_saved_ratio=(steps - run) / steps,
        exact=sum(d.result is Result.EXACT for d in drawn),
        approximate=sum(d.result is Result.APPROXIMATE for d in drawn),
        throughput=ratio_of_means(stock, seconds_of(drawn), resamples) if is_timed else None,
        computed_throughput=None if is_timed else float(stock.sum()) / steps_to_seconds(measured, drawn),
        requests_per_second=len(drawn) / float(seconds_of(drawn).sum()) if is_timed else None,
        quality=ratio_of_means(scores[name], scores[BYPASS], resamples),
        quality_resumed=ratio_of_means(scores[name][resumed], scores[BYPASS][resumed], resamples)
        if len(resumed)
        else None,
        diversity=ratio_of_means(measured.distances[name], measured.distances[BYPASS], resamples),
        fetch_p50=float(np.percentile(fetch, 50)) if fetch else None,
        fetch_p95=float(np.percentile(fetch, 95)) if fetch else None,
    )


def level_figures(measured: Measured, resamples: int) -> list[LevelFigures]:
    """One for each k that ours was granted, beside the controls that run the same steps for the same requests."""
    ours, scores = measured.drawn[OURS], measured.scores
    figures = []
    for k in sorted({d.k for d in ours if d.result is Result.APPROXIMATE}):
        those = np.array([i for i, d in enumerate(ours) if d.result is Result.APPROXIMATE and d.k == k])
        similarities = [ours[i].similarity or 0.0 for i in those]
        names = (OURS, BYPASS, LATE, RANDOM, UNIFORM)
        figures.append(
            LevelFigures(
                k,
                len(those),
                min(similarities),
                max(similarities),
                {name: float(scores[name][those].mean()) for name in names},
                {
                    name: mean_difference(scores[OURS][those], scores[name][those], resamples)
                    for name in names[1:]
                    if len(those) > 1
                },
            )
        )
    return figures


def pass_figures(measured: Measured, resamples: int) -> PassFigures:
    drawn = measured.drawn
    bypass, stock = drawn[BYPASS], drawn[STOCK]
    return PassFigures(
        steps=measured.steps,
        stream=measured.stream,
        requests=len(bypass),
        step_milliseconds=measured.step_seconds * 1000,
        bypass_time=median_ratio(seconds_of(bypass), seconds_of(stock), resamples),
        identical=sum(np.array_equal(a.picture, b.picture) for a, b in zip(bypass, stock, strict=True)),
        keep_p50_steps=float(np.median(measured.keep_seconds)) / measured.step_seconds,
        failed_look_ups=measured.failed_look_ups,
        rows=[row_figures(measured, name, resamples) for name in ROWS if name in drawn],
        differences={
            name: mean_difference(measured.scores[OURS], measured.scores[name], resamples)
            for name in ROWS
            if name in drawn and name != OURS
        },
        levels=level_figures(measured, resamples),
    )


# ---- what is printed -----------------------------------------------------------------------------------------------


def pass_table(figures: PassFigures) -> Table:
    table = Table(
        title=f"N = {figures.steps}, {figures.stream} stream, {figures.requests} requests "
        f"(one denoiser step: {figures.step_milliseconds:.1f} ms)"
    )
    table.add_column("", no_wrap=True)
    for name in (
        "steps run",
        "SSR",
        "exact/resumed",
        "req/s",
        "throughput x stock",
        "CLIPScore / BYPASS, all",
        "where ours resumed",
        "diversity / uncached",
        "fetch p50/p95",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ROWS:
        row = figures.row(name)
        if name == FEWER:
            table.add_section()
        table.add_row(name, *(_cells(row) if row else ["-"] * 9))
    return table


def _cells(row: RowFigures) -> list[str]:
    computed = f"~{row.computed_throughput:.2f}" if row.computed_throughput is not None else ""
    return [
        f"{row.steps_run:,}",
        f"{row.steps_saved_ratio:.3f}",
        f"{row.exact}/{row.approximate}",
        f"{row.requests_per_second:.2f}" if row.requests_per_second is not None else "",
        str(row.throughput) if row.throughput is not None else computed,
        str(row.quality),
        str(row.quality_resumed) if row.quality_resumed is not None else "-",
        str(row.diversity),
        f"{row.fetch_p50:.2f}/{row.fetch_p95:.2f}" if row.fetch_p50 is not None else "",
    ]


def level_table(figures: PassFigures) -> Table:
    table = Table(
        title=f"N = {figures.steps}, {figures.stream}: CLIPScore by the k that ours was granted, same requests"
    )
    for name in ("k", "requests", "similarity", "BYPASS", "ours"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in (BYPASS, LATE, RANDOM, UNIFORM):
        table.add_column(f"ours - {name}", justify="right", no_wrap=True)
    for level in figures.levels:
        table.add_row(
            f"{level.k}",
            f"{level.requests}",
            f"{level.similarity_low:.2f}-{level.similarity_high:.2f}",
            f"{level.means[BYPASS]:.3f}",
            f"{level.means[OURS]:.3f}",
            *(
                _signed(level.differences[name]) if name in level.differences else "-"
                for name in (BYPASS, LATE, RANDOM, UNIFORM)
            ),
        )
    return table


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def verdicts(figures: PassFigures) -> list[str]:
    """In words: BYPASS against stock, every control that is better than ours, every level that is not the cache's."""
    where = f"N = {figures.steps}, {figures.stream}"
    time_ratio = figures.bypass_time
    within = "within" if time_ratio.value <= 1 + MAX_SLOWER else "NOT within"
    sure = "" if time_ratio.high <= 1 + MAX_SLOWER or within == "NOT within" else ", but the interval reaches beyond"
    lines = [
        f"{where}: BYPASS takes {time_ratio} of stock's time (median request), {within} {MAX_SLOWER:.0%}{sure}; "
        f"{figures.identical} of {figures.requests} pictures are stock's bit for bit.",
        f"{where}: after the answer ours works on for {figures.keep_p50_steps:.2f} denoiser steps (median, untimed).",
    ]
    if figures.failed_look_ups:
        lines.append(f"{where}: {figures.failed_look_ups} look-ups failed and became misses.")
    lines += _quality_verdicts(figures, where) + _saving_verdicts(figures, where) + _level_verdicts(figures, where)
    if figures.row(FEWER) is None:
        lines.append(
            f"{where}: `{FEWER}` has no row: ours ran fewer steps than there are pictures, and each needs one."
        )
    return lines


def _quality_verdicts(figures: PassFigures, where: str) -> list[str]:
    """Ours against uncached, and against the controls at equal total steps; mean CLIPScore over all requests."""
    cost = figures.differences[BYPASS]
    lines = [f"{where}: ours - uncached: CLIPScore {_signed(cost)}, {_sign_in_words(cost, 'better', 'WORSE')}."]
    for name in CONTROLS:
        if (difference := figures.differences.get(name)) is None:
            continue
        words = _sign_in_words(difference, "ours wins", "the control WINS")
        lines.append(f"{where}: ours - {name} at equal total steps: CLIPScore {_signed(difference)}, {words}.")
    return lines


def _sign_in_words(difference: Interval, above: str, below: str) -> str:
    if difference.low > 0:
        return above
    return below if difference.high < 0 else "no difference shown"


def _saving_verdicts(figures: PassFigures, where: str) -> list[str]:
    """Caches against each other, by steps saved."""
    lines = []
    for one, other in ((OURS, EXACT), (TIGHT, LRU_TIGHT)):
        ours, theirs = figures.row(one), figures.row(other)
        assert ours is not None
        assert theirs is not None
        saved = f"SSR {ours.steps_saved_ratio:.3f} and {theirs.steps_saved_ratio:.3f}"
        if ours.steps_saved_ratio > theirs.steps_saved_ratio:
            lines.append(f"{where}: `{one}` saves more than `{other}`: {saved}.")
        else:
            verb = "saves no more than" if ours.steps_saved_ratio == theirs.steps_saved_ratio else "LOSES to"
            lines.append(f"{where}: `{one}` {verb} `{other}`: {saved}.")
    return lines


def _level_verdicts(figures: PassFigures, where: str) -> list[str]:
    """Levels at which a control with the same steps for the same requests is as good: that skip is not the cache's."""
    lines = []
    for level in figures.levels:
        for name in (LATE, RANDOM, UNIFORM):
            difference = level.differences.get(name)
            if difference is None or difference.low > 0:
                continue
            verb = "beats" if difference.high < 0 else "cannot be told from"
            lines.append(
                f"{where}, k = {level.k} ({level.requests} requests): {name} {verb} the cache, ours - {name} "
                f"{_signed(difference)}."
            )
    return lines


# ---- the run -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    plan: Plan
    model: LoadedModel
    scorer: Scorer
    lite: MilvusLite
    folder: Path
    console: Console


def stream_requests(stream: Stream, model: LoadedModel, steps: int) -> list[GenerationRequest]:
    width, height = model.default_size
    return [
        GenerationRequest(r.prompt, r.seed, True, steps, model.default_guidance, width, height) for r in stream.requests
    ]


def cache_setups(levels: Levels, tight: int) -> dict[str, CacheSetup]:
    return {
        OURS: CacheSetup(levels),
        EXACT: CacheSetup(Levels()),
        TIGHT: CacheSetup(levels, entries=tight),
        LRU_TIGHT: CacheSetup(levels, LRU(), tight, CacheWithoutAdmission),
    }


async def run_steps(bench: Bench, stream: Stream, steps: int) -> list[PassFigures]:
    """Both passes at one N."""
    plan, diffusion = bench.plan, bench.model.diffusion
    requests = stream_requests(stream, bench.model, steps)
    texts = encode_all(diffusion, requests)
    clock = StepClock()
    engine = Engine(diffusion, BATCH, clock.measured)
    stage = Stage(bench.model, engine, bench.lite, bench.folder / f"{steps}")
    random = np.random.default_rng([plan.seed, steps])
    controls = Controls(diffusion, plan.seed)
    passes: list[tuple[Pass, dict[str, list[Drawn]]]] = []
    async with AsyncExitStack() as stack:
        stack.push_async_callback(engine.stop)
        generators = {
            name: await stack.enter_async_context(serving(stage, name.replace(", ", "-"), setup))
            for name, setup in cache_setups(bench.model.levels, plan.tight).items()
        }
        systems: dict[str, System] = {STOCK: Stock(bench.model), BYPASS: Ours(generators[OURS], CacheMode.BYPASS)}
        systems |= {name: Ours(generator, CacheMode.DEFAULT) for name, generator in generators.items()}
        await _warm_up(systems, requests)
        for name in PASSES:
            done = await run_pass(systems, requests, random, clock, _teller(bench.console, f"N = {steps}, {name}"))
            passes.append((done, controls.draw(requests, texts, done.drawn[OURS])))
        probes = build_probes(diffusion, requests, plan, random)
        drawn_probes = await draw_probes(systems, controls, probes, _mean_steps(passes[0][1]))
        failed = sum(
            g.metrics.value("diffcache_index_errors_total", op=op)
            for g in generators.values()
            for op in INDEX_OPERATIONS
        )
    distances = {name: probes.distances(drawn) for name, drawn in drawn_probes.items()}
    prompts = [request.prompt for request in requests]
    return [
        pass_figures(
            Measured(
                steps,
                name,
                drawn := done.drawn | control_rows,
                {row: bench.scorer.score([d.picture for d in pictures], prompts) for row, pictures in drawn.items()},
                distances,
                done.keep_seconds,
                done.step_seconds,
                failed,
            ),
            plan.resamples,
        )
        for name, (done, control_rows) in zip(PASSES, passes, strict=True)
    ]


def _mean_steps(rows: dict[str, list[Drawn]]) -> dict[str, int]:
    """The number of steps nearest to what each fewer-steps control ran for a picture it drew."""
    return {
        name: max(1, round(float(np.mean([d.steps_run for d in rows[name] if d.result is not Result.EXACT]))))
        for name in (FEWER, FEWER_EXACT)
        if name in rows
    }


async def _warm_up(systems: dict[str, System], requests: Sequence[GenerationRequest]) -> None:
    for request in requests[:WARM_UP]:
        for name in (STOCK, BYPASS):
            await systems[name].draw(request)


def _teller(console: Console, what: str) -> Tell:
    def tell(done: int, of: int) -> None:
        if done % max(1, of // 6) == 0:
            console.print(f"  {time.strftime('%H:%M:%S')} {what}: {done} of {of}", style="dim")

    return tell


def machine_facts(model: LoadedModel) -> dict[str, Any]:
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", ""),
        "load_average_at_start": [round(v, 2) for v in os.getloadavg()],
        "device": str(model.diffusion.device),
        "dtype": str(model.diffusion.dtype),
        "model": model.fingerprint,
        "levels": [asdict(level) for level in model.levels.table],
        "reseed_skip_percent": model.levels.reseed_skip_percent,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def run(plan: Plan, json_path: Path | None, console: Console) -> None:
    command = " ".join([sys.executable, *sys.argv])
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="diffcache-bench-") as name:
        lite = MilvusLite(Path(name) / "milvus")
        try:
            lite.uri()
            model = load_bundled()
            facts = machine_facts(model)
            console.print(f"command: {command}")
            for key, value in facts.items():
                console.print(f"  {key}: {value}")
            options = StreamOptions(plan.requests, plan.seed, plan.repeat_share, plan.same_seed_share)
            stream = build_stream(build_pool(model, plan.pool, plan.seed), options)
            statistics = measure(stream)
            console.print(statistics_table(statistics, options))
            bench = Bench(plan, model, Scorer(BUNDLED / "emoji-clip"), lite, Path(name), console)
            figures: list[PassFigures] = []
            for steps in plan.steps:
                done = asyncio.run(run_steps(bench, stream, steps))
                report(console, done)
                figures += done
        finally:
            lite.stop()
    console.print(f"{time.perf_counter() - started:.0f} s in all")
    if json_path is not None:
        document = {
            "command": command,
            "machine": facts,
            "plan": asdict(plan),
            "stream": asdict(statistics),
            "passes": [asdict(f) for f in figures],
            "verdicts": [line for f in figures for line in verdicts(f)],
        }
        json_path.write_text(json.dumps(document, indent=1))


def report(console: Console, figures: Sequence[PassFigures]) -> None:
    for one in figures:
        console.print(pass_table(one))
        if one.levels:
            console.print(level_table(one))
        for line in verdicts(one):
            console.print(line)
    console.print(
        "Brackets: 95%, paired bootstrap over requests (diversity: over prompts, measured once for each N, on the warm "
        "caches). fetch: look-up + load, in denoiser steps. ~: computed from steps, not timed."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Plan()
    parser.add_argument("--requests", type=int, default=default.requests)
    parser.add_argument("--steps", type=int, nargs="+", default=list(default.steps), help="each N to measure")
    parser.add_argument("--seed", type=int, default=default.seed, help="of the stream and of the order of systems")
    parser.add_argument("--tight", type=int, help="entries of the tight caches; by default a quarter of the requests")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--smoke", action="store_true", help="tiny numbers: does everything run?")
    arguments = parser.parse_args()
    plan = replace(
        default,
        requests=arguments.requests,
        steps=tuple(arguments.steps),
        seed=arguments.seed,
        tight=arguments.tight or max(2, arguments.requests // 4),
    )
    configure_logs(json=False)
    run(plan.smoke() if arguments.smoke else plan, arguments.json, Console(width=190, highlight=False))


if __name__ == "__main__":
    main()
