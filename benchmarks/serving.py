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
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from diffcache_serving.openmp import set_openmp_defaults

set_openmp_defaults(spare_cores=1)
sys.path.insert(0, str(Path(__file__).parents[1]))

from typing import get_args

import numpy as np
from rich.console import Console

from benchmarks.comparison.controls import BATCH, Controls, encode_all
from benchmarks.comparison.figures import Measured, PassFigures, pass_figures
from benchmarks.comparison.machine import machine_facts
from benchmarks.comparison.quality import Scorer, build_probes, draw_probes
from benchmarks.comparison.report import report, verdicts
from benchmarks.comparison.rows import (
    BYPASS,
    EXACT,
    FEWER,
    FEWER_EXACT,
    LRU_TIGHT,
    OURS,
    PASSES,
    STOCK,
    TIGHT,
    Drawn,
)
from benchmarks.comparison.systems import (
    CacheSetup,
    Ours,
    Pass,
    Stage,
    StepClock,
    Stock,
    System,
    Tell,
    run_pass,
    serving,
)
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
from diffcache_core.cache.policies import LRU
from diffcache_core.cache.resume import Levels
from diffcache_core.generation import CacheMode, GenerationRequest, Result
from diffcache_serving.cache.events import Operation
from diffcache_serving.cache.milvus_lite import MilvusLite
from diffcache_serving.engine.engine import Engine
from diffcache_serving.engine.loading import BUNDLED, LoadedModel
from diffcache_serving.logs import configure_logs
from diffcache_serving.metrics import Metrics

WARM_UP = 3  # requests that stock and BYPASS draw before anything is timed


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
        LRU_TIGHT: CacheSetup(levels, LRU(), tight, has_admission=False),
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
        probes = build_probes(diffusion, requests, plan.probes, plan.probe_seeds, random)
        drawn_probes = await draw_probes(systems, controls, probes, _mean_steps(passes[0][1]))
        failed = sum(
            observer.value("diffcache_index_errors_total", op=op)
            for generator in generators.values()
            for observer in generator.observers
            if isinstance(observer, Metrics)
            for op in get_args(Operation)
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
