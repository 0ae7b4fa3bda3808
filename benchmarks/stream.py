"""A stream of requests that resembles a real prompt log, made of prompts of our own.

The figures it follows are those of the published log of an approximate cache (Argus, skejriwal44/argus): the similarity
of a request to the best earlier prompt, the share of exact repeats, and how many requests lie between two of them. The
prompts are the bundled model's concepts in several wordings, so every one of them can be drawn.

    python benchmarks/stream.py --requests 240     # prints target beside achieved
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from diffcache_core.choices import DType
from diffcache_core.generation import GenerationRequest
from diffcache_core.serving_config import ModelConfig
from diffcache_serving.openmp import set_openmp_defaults

if TYPE_CHECKING:  # torch takes ten seconds to import, and who only wants prompts has no use for it
    from diffcache_serving.engine.diffusion_model import DiffusionModel
    from diffcache_serving.engine.loading import LoadedModel

PERCENTILES = (5, 25, 50, 75, 95)
SIMILARITIES = (0.573, 0.657, 0.712, 0.784, 0.965)
"""Cosine of a request's prompt and the best earlier one, at PERCENTILES of the log."""

REPEAT_SHARE = 0.109  # of the log's requests whose prompt came before, word for word
REPEAT_DISTANCE = 176  # requests between the two, median of the log
REPEAT_SPREAD = 1.2
"""Sigma of the log-normal distance. The log's facts give the median only; a wider spread has more repeats both at
once and from long ago, a narrower one makes every cache above the median's size look alike."""

SAME_SEED_SHARE = 0.5
"""Of the repeats. Only these can be served by an exact-match cache; the log does not say how many there are, and a
user who presses the button again gets a fresh seed. 1 favours the exact-match cache, 0 leaves it nothing."""

POOL_SIZE = 4000
"""Prompts to choose from. More come closer to the target similarities and cost 7 ms each to encode (measured)."""

CONCEPTS = "diffcache/concepts.tsv"  # in the model's folder
STYLES = ("noto", "flat")  # what the bundled model was trained to draw
MAX_SEED = 2**31


@dataclass(frozen=True)
class StreamOptions:
    """What shapes a stream."""

    requests: int = 240
    seed: int = 0
    repeat_share: float = REPEAT_SHARE
    same_seed_share: float = SAME_SEED_SHARE
    repeat_distance: float = REPEAT_DISTANCE


@dataclass(frozen=True)
class Pool:
    """Distinct prompts and their keys, (prompts, dim) float32, L2-normalised."""

    prompts: tuple[str, ...]
    keys: np.ndarray


@dataclass(frozen=True)
class StreamRequest:
    """One request; `prompt_index` counts in the pool."""

    prompt: str
    prompt_index: int
    seed: int
    repeats: int | None  # the earlier request that this one repeats word for word
    same_seed: bool  # and with the same seed
    similarity: float  # to the best earlier prompt; -1 for the first request
    target: float  # what was drawn for it; NaN for repeats and the first request


@dataclass(frozen=True)
class Stream:
    requests: tuple[StreamRequest, ...]
    keys: np.ndarray  # (requests, dim)


# ---- prompts -------------------------------------------------------------------------------------------------------


def read_concepts(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Label and tags of each concept of a `concepts.tsv`."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    rows = [line.partition("\t") for line in lines]
    return [(label, tuple(tag.strip() for tag in tags.split(",") if tag.strip())) for label, _, tags in rows]


def wordings(label: str, tags: Sequence[str], style: str) -> list[str]:
    """How one concept in one style may be asked for. A tag that the label holds already adds nothing, so it is left."""
    telling = [tag for tag in tags if tag not in label.split()]
    article = "an" if label[0] in "aeiou" else "a"
    heads = [label, f"{article} {label}"]
    heads += [f"{label}, {tag}" for tag in telling]
    heads += [f"{label}, {one}, {two}" for one, two in itertools.combinations(telling, 2)]
    return [f"{head}, {style} style" for head in heads]


def build_prompts(concepts: Sequence[tuple[str, tuple[str, ...]]], size: int, seed: int) -> tuple[str, ...]:
    """`size` distinct prompts (fewer if there are not so many), a random choice of all wordings of all concepts."""
    everything = dict.fromkeys(
        prompt for label, tags in concepts for style in STYLES for prompt in wordings(label, tags, style)
    )
    prompts = list(everything)
    order = np.random.default_rng(seed).permutation(len(prompts))[:size]
    return tuple(prompts[i] for i in order)


def build_scenes(concepts: Sequence[tuple[str, tuple[str, ...]]], size: int, seed: int) -> tuple[str, ...]:
    """`size` prompts of two or three concepts each. The bundled model cannot draw them; for streams of keys only, where
    462 concepts are used up after some hundred requests and nothing new is left to ask for."""
    random = np.random.default_rng(seed)
    scenes: dict[str, None] = {}
    while len(scenes) < size:
        one, two, three = (concepts[i][0] for i in random.choice(len(concepts), 3, replace=False))
        style = STYLES[int(random.integers(len(STYLES)))]
        scenes[f"{one} and {two}, {style} style" if random.random() < 0.5 else f"{one} with {two} and {three}"] = None
    return tuple(scenes)


def encode_pool(model: DiffusionModel, prompts: Sequence[str]) -> Pool:
    """The pool with keys from the model's own text encoder, as a request's key is made."""
    import torch

    with torch.inference_mode():  # guidance 0: the key needs no negative prompt
        keys = [model.encode(GenerationRequest(p, 0, True, 1, 0.0, 64, 64)).key for p in prompts]
    return Pool(tuple(prompts), np.stack(keys))


def load_bundled(source: str = "bundled://emoji") -> LoadedModel:
    """The bundled model at the settings of the quickstart's manifest."""
    set_openmp_defaults(spare_cores=1)  # read when torch is imported, so before
    from diffcache_serving.engine.loading import load_model

    return load_model(
        ModelConfig(source=source, scheduler="DDIM", dtype=DType.AUTO, steps=8, guidance=3.0, width=None, height=None)
    )


def build_pool(model: LoadedModel, size: int, seed: int, scenes: int = 0) -> Pool:
    """`size` prompts that the model can draw, and `scenes` that it cannot."""
    concepts = read_concepts(model.folder / CONCEPTS)
    return encode_pool(model.diffusion, build_prompts(concepts, size, seed) + build_scenes(concepts, scenes, seed))


# ---- the stream ----------------------------------------------------------------------------------------------------


def quantile(share: float) -> float:
    """The log's similarity at this share of its requests: straight lines through the known percentiles, drawn out at
    both ends, below 1 because a request that is not a repeat is not equal."""
    shares = [p / 100 for p in PERCENTILES]
    low = SIMILARITIES[0] - (SIMILARITIES[1] - SIMILARITIES[0]) / (shares[1] - shares[0]) * shares[0]
    high = SIMILARITIES[-1] + (SIMILARITIES[-1] - SIMILARITIES[-2]) / (shares[-1] - shares[-2]) * (1 - shares[-1])
    return float(np.interp(share, [0.0, *shares, 1.0], [low, *SIMILARITIES, min(high, 0.999)]))


def draw_repeated(random: np.random.Generator, median: float, i: int, last: Sequence[bool]) -> int:
    """Which request the i-th one repeats: a log-normal distance back, drawn again while it reaches before the beginning
    or meets a prompt that was repeated since (`last` is False), whose distance would be shorter than the drawn one."""
    for _ in range(100):
        distance = max(1, round(median * math.exp(REPEAT_SPREAD * random.standard_normal())))
        if distance <= i and last[i - distance]:
            return i - distance
    return i - 1  # always the last of its prompt


def build_stream(pool: Pool, options: StreamOptions) -> Stream:
    """The requests in order: a repeat, or the unused prompt whose best earlier similarity is nearest to a drawn one.

    Seeds are explicit. A repeat takes over the earlier seed in `same_seed_share` of the cases, else a fresh one.
    """
    random = np.random.default_rng(options.seed)
    best = np.full(len(pool.prompts), -1.0, np.float32)  # of each prompt, to all requests so far
    unused = np.ones(len(pool.prompts), bool)
    requests: list[StreamRequest] = []
    last = [True] * options.requests  # no later request repeats it
    for i in range(options.requests):
        seed = int(random.integers(MAX_SEED))
        repeats, same_seed, target = None, False, math.nan
        if i and (random.random() < options.repeat_share or not unused.any()):
            repeats = draw_repeated(random, options.repeat_distance, i, last)
            last[repeats] = False
            same_seed = bool(random.random() < options.same_seed_share)
            chosen, seed = requests[repeats].prompt_index, requests[repeats].seed if same_seed else seed
        elif i:
            target = quantile(float(random.random()))
            chosen = int(np.argmin(np.where(unused, np.abs(best - target), np.inf)))
        else:
            chosen = int(random.integers(len(pool.prompts)))
        requests.append(
            StreamRequest(pool.prompts[chosen], chosen, seed, repeats, same_seed, float(best[chosen]), target)
        )
        unused[chosen] = False
        best = np.maximum(best, pool.keys @ pool.keys[chosen])
    return Stream(tuple(requests), pool.keys[[r.prompt_index for r in requests]])


# ---- statistics ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StreamStatistics:
    """What a stream achieved, beside the log's figures."""

    requests: int
    similarities: tuple[float, ...]  # at PERCENTILES, repeats left out: those follow their own rule
    similarities_all: tuple[float, ...]  # at PERCENTILES, repeats counted as 1
    repeat_share: float
    repeat_distance: float  # median, to the last time the prompt was asked for; NaN without repeats
    same_seed_share: float  # of the repeats; NaN without


def measure(stream: Stream) -> StreamStatistics:
    later = stream.requests[1:]
    fresh = [r.similarity for r in later if r.repeats is None]
    last: dict[int, int] = {}
    distances = []
    for i, request in enumerate(stream.requests):
        if request.repeats is not None:
            distances.append(i - last[request.prompt_index])
        last[request.prompt_index] = i
    repeats = [r for r in later if r.repeats is not None]

    def percentiles(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(float(v) for v in np.percentile(values, PERCENTILES)) if values else (math.nan,) * len(PERCENTILES)

    return StreamStatistics(
        len(stream.requests),
        percentiles(fresh),
        percentiles([min(r.similarity, 1.0) for r in later]),
        len(repeats) / len(stream.requests),
        float(np.median(distances)) if distances else math.nan,
        sum(r.same_seed for r in repeats) / len(repeats) if repeats else math.nan,
    )


def statistics_table(statistics: StreamStatistics, options: StreamOptions) -> Table:
    """Target beside achieved."""
    table = Table(title=f"stream of {statistics.requests} requests, seed {options.seed}: target and achieved")
    table.add_column("")
    for name in ("target", "achieved", "with repeats as 1"):
        table.add_column(name, justify="right")
    for p, target, fresh, everything in zip(
        PERCENTILES, SIMILARITIES, statistics.similarities, statistics.similarities_all, strict=True
    ):
        table.add_row(f"similarity, p{p}", f"{target:.3f}", f"{fresh:.3f}", f"{everything:.3f}")
    for label, target, value in (
        ("exact repeats, share", options.repeat_share, statistics.repeat_share),
        ("repeat distance, median", options.repeat_distance, statistics.repeat_distance),
        ("repeats with the same seed", options.same_seed_share, statistics.same_seed_share),
    ):
        table.add_row(label, f"{target:.3g}", f"{value:.3g}", "")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pool", type=int, default=POOL_SIZE, help="distinct prompts to choose from")
    parser.add_argument("--same-seed-share", type=float, default=SAME_SEED_SHARE, help="of the repeats")
    arguments = parser.parse_args()
    options = StreamOptions(arguments.requests, arguments.seed, same_seed_share=arguments.same_seed_share)
    stream = build_stream(build_pool(load_bundled(), arguments.pool, arguments.seed), options)
    console = Console(width=max(100, Console().width))
    console.print(statistics_table(measure(stream), options))
    for request in stream.requests[:10]:
        console.print(f"  {request.similarity:6.3f}  {request.prompt}", highlight=False)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
