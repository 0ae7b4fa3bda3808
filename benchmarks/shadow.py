"""What measuring quality beside the requests costs, and what it measures, on the bundled model.

    python benchmarks/shadow.py                   # about half an hour on two cores
    python benchmarks/shadow.py --smoke           # everything once, numbers too small to mean anything

1. Cost. One stream of requests (benchmarks/stream.py) goes to two servers with a cache each, one that compares and one
   that does not, in blocks, the server that begins drawn at random; between two requests there is a pause of random
   length, so that the device is idle for about half of the time. Told: the ratio of the latencies of the same requests,
   and the share of the steps that comparisons took.
2. Quality. A longer stream of which every request is compared: mean q_c, q_u and their ratio, by level.
"""

# ruff: noqa: E402 -- OpenMP reads its settings when torch is imported, and `benchmarks` needs the repository's root

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from diffcache_serving.openmp import set_openmp_defaults

set_openmp_defaults(spare_cores=1)
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.comparison.machine import machine_facts
from benchmarks.stream import POOL_SIZE, StreamOptions, build_pool, build_stream, load_bundled
from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import LCBFU
from diffcache_core.cache.states import StateKind
from diffcache_core.generation import GenerationRequest
from diffcache_core.resource_to_config import BUNDLED_SCORERS, LITE_MAX_ENTRIES
from diffcache_core.serving_config import QualityConfig
from diffcache_serving.cache.cache import Cache
from diffcache_serving.cache.index import MemoryIndex
from diffcache_serving.cache.ledger_sqlite import SqliteLedger
from diffcache_serving.cache.store import StateStore
from diffcache_serving.engine.engine import Engine
from diffcache_serving.engine.loading import LoadedModel
from diffcache_serving.generate import Generator
from diffcache_serving.logs import configure_logs
from diffcache_serving.metrics import Metrics
from diffcache_serving.quality.comparisons import Comparisons
from diffcache_serving.queueing import StepQueue

SOURCE = "bundled://emoji"
STEPS, BATCH, BLOCK = 8, 8, 20
EVERY_REQUEST = 1000
"""Percent: more than a manifest may ask for, so that the second part compares whatever there is to compare."""


@dataclass(frozen=True)
class Plan:
    requests: int = 400  # of the first part, to each server
    compared: int = 400  # of the second
    percent: int = 2
    pool: int = POOL_SIZE
    seed: int = 0


@dataclass(frozen=True)
class Site:
    generator: Generator
    shadows: Comparisons
    metrics: Metrics

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"diffcache_{name}_total", labels) or 0.0


@asynccontextmanager
async def serving(model: LoadedModel, folder: Path, percent: int) -> AsyncIterator[Site]:
    """A server's inner parts, wired as the serving process wires them."""
    metrics = Metrics(model.name)
    ledger = await SqliteLedger.open(folder / "ledger.db", LCBFU())
    identity, budget = model.identity(shared=False), Budget(2**40, LITE_MAX_ENTRIES)
    parts = (ledger, StateStore(folder / "states"), MemoryIndex(), metrics, identity)
    cache = Cache(*parts, model.levels, StateKind.CLEAN, budget)
    await cache.repair()
    queue, engine = StepQueue(10**9), Engine(model.diffusion, BATCH)
    shadows = Comparisons(queue, engine, cache, metrics)
    await shadows.configure(QualityConfig(shadow_percent=percent, scorer=BUNDLED_SCORERS[SOURCE] if percent else ""))
    try:
        yield Site(Generator(queue, engine, cache, [metrics, shadows]), shadows, metrics)
    finally:
        await shadows.close()
        await engine.stop()
        await cache.close()


def stream_requests(model: LoadedModel, plan: Plan, count: int) -> list[GenerationRequest]:
    stream = build_stream(build_pool(model, plan.pool, plan.seed), StreamOptions(count, plan.seed))
    width, height = model.default_size
    return [
        GenerationRequest(
            r.prompt, r.seed, True, STEPS, model.default_guidance, width, height, request_id=f"request-{number}"
        )
        for number, r in enumerate(stream.requests)
    ]


async def measure_cost(model: LoadedModel, plan: Plan, folder: Path, console: Console) -> None:
    requests = stream_requests(model, plan, plan.requests)
    random = np.random.default_rng(plan.seed)
    seconds: dict[str, list[float]] = {"off": [], "on": []}
    async with serving(model, folder / "off", 0) as off, serving(model, folder / "on", plan.percent) as on:
        sites = {"off": off, "on": on}
        for at in range(0, len(requests), BLOCK):
            for name in random.permutation(list(sites)).tolist():
                pauses = np.random.default_rng([plan.seed, at]).exponential(size=BLOCK)  # the same for both
                for request, pause in zip(requests[at : at + BLOCK], pauses, strict=False):
                    began = time.perf_counter()
                    await sites[name].generator.generate(request)
                    seconds[name].append(time.perf_counter() - began)
                    await asyncio.sleep(float(pause) * float(np.median(seconds[name])))
                await sites[name].shadows.settle()  # the next block is the other server's
        asked, ran = on.counted("steps"), on.counted("shadow_steps")
        outcomes = {o: on.counted("shadow_runs", outcome=o) for o in ("compared", "dropped", "failed")}
    console.print(
        f"at {plan.percent}%: comparisons took {ran:.0f} of {asked:.0f} steps ({100 * ran / asked:.2f}%); {outcomes}"
    )
    slow, fast = np.array(seconds["on"]), np.array(seconds["off"])
    for name, share in (("p50", 50), ("p95", 95)):
        a, b = np.percentile(slow, share), np.percentile(fast, share)
        console.print(f"latency {name}: on {a * 1e3:.1f} ms, off {b * 1e3:.1f} ms, ratio {a / b:.3f}")
    resampled = [
        slow[i].mean() / fast[i].mean() for i in random.integers(len(slow), size=(2000, len(slow)))
    ]  # pairs of one request
    low, high = np.percentile(resampled, [2.5, 97.5])
    console.print(f"latency mean: ratio {slow.mean() / fast.mean():.3f} [{low:.3f}, {high:.3f}]")


async def measure_quality(model: LoadedModel, plan: Plan, folder: Path, console: Console) -> None:
    requests = stream_requests(model, plan, plan.compared)
    async with serving(model, folder / "every", EVERY_REQUEST) as site:
        for request in requests:
            await site.generator.generate(request)
            await site.shadows.settle()
        console.print(quality_table(site))


def quality_table(site: Site) -> Table:
    samples = [s for family in site.metrics.registry.collect() for s in family.samples]
    cells = {
        (int(s.labels["skip"]), s.labels["similarity"]): s.value
        for s in samples
        if s.name == "diffcache_quality_pairs_total"
    }
    table = Table("skip", "similarity from", "pairs", "mean q_c", "mean q_u", "ratio", "q_c - q_u, 95%")
    for skip in sorted({skip for skip, _ in cells}):
        bins = sorted(where for other, where in cells if other == skip)
        for name, members in [*((where, [where]) for where in bins), ("all", bins)]:
            n = sum(cells[skip, where] for where in members)
            sums = {
                m: sum(site.counted("quality_sum", skip=str(skip), similarity=w, moment=m) for w in members)
                for m in ("c", "u", "cc", "uu", "cu")
            }
            table.add_row(f"{skip}%", name, f"{n:.0f}", *_figures(n, sums), end_section=name == "all")
    return table


def _figures(n: float, sums: dict[str, float]) -> Sequence[str]:
    mean = (sums["c"] - sums["u"]) / n
    variance = max(0.0, (sums["cc"] - 2 * sums["cu"] + sums["uu"]) / n - mean**2)
    return (
        f"{sums['c'] / n:.4f}",
        f"{sums['u'] / n:.4f}",
        f"{sums['c'] / sums['u']:.4f}",
        f"{mean:+.4f} +- {1.96 * (variance / n) ** 0.5:.4f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Plan()
    parser.add_argument("--requests", type=int, default=default.requests, help="of the first part, to each server")
    parser.add_argument("--compared", type=int, default=default.compared, help="requests of the second part")
    parser.add_argument("--percent", type=int, default=default.percent, help="budget of the first part")
    parser.add_argument("--smoke", action="store_true", help="tiny numbers: does everything run?")
    given = parser.parse_args()
    plan = Plan(4, 4, 20, pool=100) if given.smoke else Plan(given.requests, given.compared, given.percent)
    configure_logs(json=False)
    console = Console(width=120, highlight=False)
    model = load_bundled(SOURCE)
    for key, value in machine_facts(model).items():
        console.print(f"  {key}: {value}")
    with tempfile.TemporaryDirectory(prefix="diffcache-bench-") as name:
        asyncio.run(measure_cost(model, plan, Path(name), console))
        asyncio.run(measure_quality(model, plan, Path(name), console))


if __name__ == "__main__":
    main()
