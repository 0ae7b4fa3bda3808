"""What the simulated caches cost: time of a request in them, memory of an entry, and what requests notice.

    python benchmarks/shadow_caches.py            # some minutes

Requests with and without them take turns in one run, block by block, so that both meet the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import structlog
from rich.console import Console

from benchmarks.stream import load_bundled
from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import LCBFU
from diffcache_core.cache.resume import Level, Levels
from diffcache_core.cache.states import StateKind
from diffcache_core.choices import DType, Scope
from diffcache_core.generation import GenerationRequest
from diffcache_core.serving_config import CacheConfig, IndexConfig, ModelConfig, ServingConfig, TuningConfig
from diffcache_core.simulator.cache import SimulatedRequest
from diffcache_serving.config_file import ConfigFile
from diffcache_serving.server import wired
from diffcache_serving.simulated_caches.caches import CachesBySize
from diffcache_serving.simulated_caches.events import Answered, Asked, digest

STATE_BYTES = 36_864  # a latent of Stable Diffusion at 512 pixels in float16, with its header, in whole blocks
LEVELS = Levels((Level(10, 0.65), Level(25, 0.75), Level(50, 0.9)), reseed_skip_percent=10)


def synthetic(rng: np.random.Generator, count: int, dim: int) -> list[Asked]:
    """Requests of topics of unequal frequency; within one the cosine is about .8."""
    topics = rng.normal(size=(max(1, count // 20), dim))
    topics /= np.linalg.norm(topics, axis=1, keepdims=True)
    events = []
    for i in range(count):
        own = rng.normal(size=dim)
        key = topics[rng.zipf(1.3) % len(topics)] + 0.5 * own / np.linalg.norm(own)
        name = digest(str(i))
        request = SimulatedRequest(name, name, 0, 50)
        events.append(Asked(str(i), b"space", request, (key / np.linalg.norm(key)).astype(np.float32)))
    return events


def measure_alone(console: Console, entries: int, dim: int, requests: int) -> None:
    rng = np.random.default_rng(0)
    budget = Budget(entries * STATE_BYTES)
    answered = {StateKind.CLEAN: STATE_BYTES}
    tracemalloc.start()
    caches = CachesBySize(LCBFU(), LEVELS, StateKind.CLEAN, budget)
    for event in synthetic(rng, 5 * entries, dim):
        caches.take(event)
        caches.take(Answered(event.ticket, True, event.ticket, answered))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    probes = synthetic(rng, requests, dim)
    wall, cpu = time.perf_counter(), time.thread_time()
    for event in probes:
        caches.take(event)
        caches.take(Answered(event.ticket, True, event.ticket, answered))
    wall, cpu = (time.perf_counter() - wall) / requests, (time.thread_time() - cpu) / requests
    console.print(
        f"{entries:,} entries at 1x, {dim} dimensions: {len(caches):,} keys; {held / entries / 1024:.1f} KiB an entry "
        f"of the real cache, of which keys {caches.key_bytes / entries / 1024:.1f}; {cpu * 1000:.2f} ms of CPU and "
        f"{wall * 1000:.2f} ms a request"
    )


async def measure_beside(console: Console, blocks: int, size: int, at_once: int) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    model = load_bundled()
    rng = np.random.default_rng(0)
    words = [f"{c} {t}" for c in ("red", "green", "blue", "white") for t in ("apple", "cat", "house", "car", "tree")]
    with tempfile.TemporaryDirectory() as folder:
        config = ServingConfig(
            name="benchmark",
            data_dir=Path(folder),
            model=ModelConfig(
                source="bundled://emoji", scheduler="DDIM", dtype=DType.AUTO, steps=8, guidance=3.0, width=64, height=64
            ),
            batch_max_size=8,
            queue_max_steps=4000,
            cache=CacheConfig(
                capacity_bytes=2**22, max_entries=10_000, state=StateKind.CLEAN, scope=Scope.TENANT, levels=None
            ),
            index=IndexConfig(type="Memory"),
        )
        walls: dict[bool, list[float]] = {True: [], False: []}
        cpus: dict[bool, list[float]] = {True: [], False: []}
        async with wired(config, model, None) as server:

            async def draw(count: int) -> None:
                wanted = [
                    GenerationRequest(str(rng.choice(words)), int(rng.integers(1000)), True, 8, 3.0, 64, 64)
                    for _ in range(count)
                ]
                for start in range(0, count, at_once):
                    await asyncio.gather(*map(server.generator.generate, wanted[start : start + at_once]))

            await draw(size)
            for block in range(2 * blocks):
                is_on = bool(block % 2)
                changed = config.model_copy(update={"tuning": TuningConfig(shadow_caches=is_on)})
                await server.reloader.take_over(ConfigFile(Path(folder), str(block), changed))
                wall, cpu = time.perf_counter(), time.process_time()
                await draw(size)
                walls[is_on].append(time.perf_counter() - wall)
                cpus[is_on].append(time.process_time() - cpu)
    for name, values in (("time", walls), ("CPU", cpus)):
        ratios = [on / off for on, off in zip(values[True], values[False], strict=True)]
        console.print(
            f"{name} of {size} requests, {at_once} at once, on over off: median {statistics.median(ratios):.3f}, "
            f"{min(ratios):.3f} to {max(ratios):.3f} over {blocks} pairs of blocks"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[250, 1000, 2500], help="of the cache at 1x")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--block", type=int, default=24)
    arguments = parser.parse_args()
    console = Console(width=160, highlight=False)
    console.print(f"command: {' '.join([sys.executable, *sys.argv])}")
    for entries in arguments.entries:
        measure_alone(console, entries, arguments.dim, arguments.requests)
    for at_once in (1, 8):
        asyncio.run(measure_beside(console, arguments.blocks, arguments.block, at_once))


if __name__ == "__main__":
    main()
