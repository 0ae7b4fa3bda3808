"""Does the serving process grow? 2,000 requests at 4 steps over gRPC, and the slope of its resident memory.

    python benchmarks/soak.py                      # about eight minutes on two cores

All that callers choose is random: prompts, seeds, negative prompts, sizes, tenants and request ids, most of them never
seen before; one connection in ten is a new one. The server is a process of its own (`python -m diffcache_serving`, the
bundled model, Milvus Lite, its caches), four requests are in flight, and after each answer its RSS, descriptors and
threads are read; neither this client's memory nor Milvus Lite's counts. The cache has room for as many entries as the
warm-up draws (a manifest allows no less than 128): from then on it is full, so what grows is a leak and not content.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc
import numpy as np
import psutil
from rich.console import Console

import diffcache_serving
from benchmarks.stream import CONCEPTS, MAX_SEED, build_prompts, read_concepts
from diffcache_core.names import TENANT_METADATA
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_core.pb import diffcache_pb2_grpc as pb_grpc
from diffcache_core.resource.manifest import parse_manifest
from diffcache_core.resource_to_config import Host, build_serving_config
from diffcache_core.serving_config import ListenConfig

STEPS = 4
IN_FLIGHT = 4
START_SECONDS = 120.0  # for a machine that loads the model while others work
ANSWER_SECONDS = 120.0  # likewise, for one picture
ENTRY_KIB = 8  # allocated by one latent of 16x16x4 in float32 and its header
SMALLEST_KIB = 1024  # the least capacity that a manifest may ask for
BLOCKS = 20
"""Samples of the slope: medians of so many stretches. RSS moves in steps that last for hundreds of requests, so the
requests are not independent and an interval from each of them would be far too narrow."""

T_95 = 2.101  # Student's t for BLOCKS - 2 degrees of freedom
EXACT_SHARE = 0.1  # of the requests repeat an earlier one, seed included
CONNECTION_SHARE = 0.1  # of the requests come over a connection of their own
SIDES = (16, 24, 32, 40)  # pixels; each pair of them is met during the warm-up

MANIFEST = """\
apiVersion: diffcache.io/v1alpha1
kind: DiffusionCache
metadata: {{name: soak}}
spec:
  model: {{source: bundled://emoji, steps: {steps}, guidance: "3.0"}}
  cache: {{capacity: {kib}Ki}}
  tuning: {{mode: Recommend}}
"""


@dataclass(frozen=True)
class Slope:
    """KiB per 1,000 requests, least squares over the medians of equal stretches, with a 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Sample:
    """The serving process after a request."""

    rss_kib: float
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Soak:
    """What came of it. Medians of the first and of the last tenth after the warm-up."""

    requests: int
    warm_up: int
    slope: Slope
    first: Sample
    last: Sample
    highest_kib: float
    results: dict[str, int]
    seconds: float


@dataclass(frozen=True)
class Asked:
    """What one caller sends."""

    message: pb.GenerateRequest
    tenant: str
    own_connection: bool


def fit_slope(rss_kib: Sequence[float], blocks: int = BLOCKS) -> Slope:
    """Least squares over `blocks` medians; `T_95` belongs to the default number."""
    parts = np.array_split(np.asarray(rss_kib, float), blocks)
    centres = np.cumsum([len(p) for p in parts]) - np.array([len(p) for p in parts]) / 2
    medians = np.array([np.median(p) for p in parts])
    x = (centres - centres.mean()) / 1000
    slope = float(x @ (medians - medians.mean()) / (x @ x))
    residuals = medians - medians.mean() - slope * x
    error = float(np.sqrt(residuals @ residuals / (blocks - 2) / (x @ x)))
    return Slope(slope, slope - T_95 * error, slope + T_95 * error)


def build_requests(count: int, seed: int) -> list[Asked]:
    """Mostly new ones, `EXACT_SHARE` of them repeated."""
    random = np.random.default_rng(seed)
    concepts = read_concepts(Path(diffcache_serving.__file__).parent / "models" / "emoji" / CONCEPTS)
    prompts = build_prompts(concepts, 2 * count, seed)

    def one_of(values: Sequence[Any]) -> Any:
        return values[int(random.integers(len(values)))]

    requests: list[Asked] = []
    for number in range(count):
        if requests and random.random() < EXACT_SHARE:
            requests.append(one_of(requests))
            continue
        message = pb.GenerateRequest(
            prompt=one_of(prompts),
            negative_prompt=one_of(("", one_of(prompts), f"no {number}")),
            seed=int(random.integers(MAX_SEED)),
            steps=STEPS,
            guidance=float(one_of((3.0, 1.0 + random.random()))),
            width=one_of(SIDES),
            height=one_of(SIDES),
            request_id=uuid.UUID(bytes=random.bytes(16)).hex,
        )
        tenant = one_of(("default", f"tenant-{number}"))
        requests.append(Asked(message, tenant, bool(random.random() < CONNECTION_SHARE)))
    return requests


@contextlib.contextmanager
def serving(folder: Path, entries: int) -> Iterator[tuple[psutil.Process, str]]:
    """The real serving process; its pid and its address."""
    ports = free_ports(3)
    listen = ListenConfig(port=ports[0], admin_port=ports[1], metrics_port=ports[2])
    resource = parse_manifest(MANIFEST.format(steps=STEPS, kib=max(SMALLEST_KIB, ENTRY_KIB * entries)), "soak")
    config = folder / "serving.json"
    config.write_text(build_serving_config(resource, Host(folder / "data", listen)).model_dump_json())
    log = folder / "serving.log"
    with log.open("w") as file:
        child = subprocess.Popen([sys.executable, "-m", "diffcache_serving", "--config", str(config)], stderr=file)
    try:
        wait_for(child, ports[0], log)
        yield psutil.Process(child.pid), f"127.0.0.1:{ports[0]}"
    finally:
        child.terminate()
        child.wait(60)


def wait_for(child: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Returns when the server listens. Raises RuntimeError with its last words if it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    raise RuntimeError(f"the server does not listen: {log.read_text(errors='replace')[-2000:]}")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; all held until the last is found, so they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def look_at(process: psutil.Process) -> Sample:
    return Sample(process.memory_info().rss / 1024, process.num_fds(), process.num_threads())


def median_of(samples: Sequence[Sample]) -> Sample:
    rows = np.median([[s.rss_kib, s.descriptors, s.threads] for s in samples], axis=0)
    return Sample(float(rows[0]), int(rows[1]), int(rows[2]))


def soak(requests: int, warm_up: int, seed: int, console: Console) -> tuple[Soak, list[Sample]]:
    """Runs it; the result and what the process was like after each request that follows the warm-up."""
    started = time.perf_counter()
    results: dict[str, int] = {}
    samples: list[Sample] = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="diffcache-soak-")))
        process, address = stack.enter_context(serving(folder, warm_up))
        shared = stack.enter_context(grpc.insecure_channel(address))
        threads = stack.enter_context(ThreadPoolExecutor(IN_FLIGHT))

        def send(asked: Asked) -> str:
            with contextlib.ExitStack() as own:
                options = [("grpc.use_local_subchannel_pool", 1)]  # else it shares the connection of the others
                channel = own.enter_context(grpc.insecure_channel(address, options)) if asked.own_connection else shared
                generate = pb_grpc.ImageGenerationStub(channel).Generate
                answer = generate(asked.message, metadata=[(TENANT_METADATA, asked.tenant)], timeout=ANSWER_SECONDS)
            return str(pb.Result.Name(answer.result).removeprefix("RESULT_").lower())

        stream = build_requests(warm_up + requests, seed)
        for done, result in enumerate(threads.map(send, stream), start=1):
            results[result] = results.get(result, 0) + 1
            sample = look_at(process)
            if done > warm_up:
                samples.append(sample)
            if done % max(1, len(stream) // 11) == 0:
                console.print(
                    f"  {time.strftime('%H:%M:%S')} {done} of {len(stream)}: {sample.rss_kib:,.0f} KiB, "
                    f"{sample.descriptors} descriptors, {sample.threads} threads",
                    style="dim",
                )
    tenth = max(1, len(samples) // 10)
    return (
        Soak(
            requests,
            warm_up,
            fit_slope([sample.rss_kib for sample in samples]),
            median_of(samples[:tenth]),
            median_of(samples[-tenth:]),
            max(sample.rss_kib for sample in samples),
            results,
            time.perf_counter() - started,
        ),
        samples,
    )


def verdict(done: Soak) -> str:
    slope = done.slope
    text = f"RSS slope {slope.value:+,.0f} KiB per 1,000 requests, 95% [{slope.low:+,.0f}, {slope.high:+,.0f}]"
    if slope.low > 0:
        return f"{text}: it GROWS."
    return f"{text}: {'it shrinks' if slope.high < 0 else 'no growth shown'}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000, help=f"after the warm-up; at least {BLOCKS}")
    parser.add_argument("--warm-up", type=int, default=200, help="requests before the first sample; also the capacity")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all figures and samples here")
    arguments = parser.parse_args()
    if arguments.requests < BLOCKS or arguments.warm_up < 1:
        parser.error(f"--requests must be at least {BLOCKS}, --warm-up at least 1")
    console = Console(width=120, highlight=False)
    command = " ".join([sys.executable, *sys.argv])
    console.print(f"command: {command}\n  platform: {platform.platform()}, cpus: {psutil.cpu_count()}")
    done, samples = soak(arguments.requests, arguments.warm_up, arguments.seed, console)
    console.print(f"{done.requests:,} requests at {STEPS} steps after {done.warm_up:,}, {done.seconds:.0f} s in all")
    console.print("results: " + ", ".join(f"{count:,} {name}" for name, count in sorted(done.results.items())))
    console.print(
        f"medians of the first tenth and of the last: RSS {done.first.rss_kib:,.0f} and {done.last.rss_kib:,.0f} KiB "
        f"(highest {done.highest_kib:,.0f}), descriptors {done.first.descriptors} and {done.last.descriptors}, threads "
        f"{done.first.threads} and {done.last.threads}"
    )
    console.print(verdict(done))
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"command": command} | asdict(done) | {"samples": [asdict(sample) for sample in samples]})
        )


if __name__ == "__main__":
    main()
