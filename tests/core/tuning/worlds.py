"""Simulated worlds whose truth is known, to see where the tuner ends up in them.

Quality: skipping s percent at similarity x keeps `target + slope * (x - crossing[s])` of the uncached quality, at most
`best`. So the truth about a level is its crossing. Pairs are drawn one by one, with noise and now and then a failure;
which pairs are drawn is decided by the very function that the pods use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from diffcache_core.cache.resume import Level
from diffcache_core.names import SHADOW_MULTIPLES
from diffcache_core.tuning.comparisons import REACH
from diffcache_core.tuning.evidence import BINS, CLOSED, EDGES
from diffcache_core.tuning.tuner import Batch, Goals, PairSums, Tuning, Window

LOOK_SECONDS = 600.0
START = 1_000_000.0
MOST_BATCHES = 11  # then two and two are joined, as a reader does who asks for few points over a long time
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    crossing: Mapping[int, float]  # by skip percent: from this similarity on it keeps the target
    slope: float  # ratio per similarity
    target: float
    best: float = 1.01
    uncached: float = 0.74  # mean of q_u
    spread: float = 0.1  # of q_u, from request to request
    noise: float = 0.05  # of q_c around ratio * q_u
    failures: float = 0.0  # share of resumed pictures that are worth nothing; the ratio above includes them

    def ratio(self, skip: Array, similarity: Array) -> Array:
        """Mean of q_c / q_u."""
        skips = np.array(sorted(self.crossing))
        crossing = np.array([self.crossing[int(s)] for s in skips])[np.searchsorted(skips, skip)]
        return np.clip(self.target + self.slope * (similarity - crossing), 0.0, self.best)

    def draw(self, rng: np.random.Generator, skip: Array, similarity: Array) -> tuple[Array, Array]:
        """Qualities with and without the cache, in 0..1."""
        q_u = np.clip(rng.normal(self.uncached, self.spread, len(skip)), 0, 1)
        ratio = self.ratio(skip, similarity) / (1 - self.failures)
        alive = rng.random(len(skip)) >= self.failures
        q_c = np.clip(ratio * q_u + rng.normal(0, self.noise, len(skip)), 0, 1) * alive
        return q_c, q_u

    def shifted(self, by: float) -> Quality:
        return replace(self, crossing={skip: at + by for skip, at in self.crossing.items()})


@dataclass
class World:
    """`step` lets one look's worth of requests pass and returns what the tuner then sees."""

    quality: Quality
    seed: int
    due: int = 400  # compared requests between two looks
    similarities: tuple[float, float] = (5.0, 2.5)  # Beta distribution of that of the nearest entry
    saved: Callable[[float], float] = lambda capacity: 0.3  # steps saved ratio by capacity in bytes
    per_look: float = 5000.0  # requests between two looks
    saved_noise: float = 0.0  # of a steps saved ratio that one request tells; that of n is off by sqrt(n) less
    p95: Callable[[float], float] = lambda skipped: 1.0  # seconds, by share of steps skipped
    looks: int = 0
    followed: Tuning | None = None
    requests: float = 0.0  # since `followed` is
    served: list[tuple[float, float]] = field(default_factory=list)  # per look: share of hits, their mean ratio
    batches: list[Batch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.crowd = np.random.default_rng(1).beta(*self.similarities, 4000)  # stands for all requests

    @property
    def now(self) -> float:
        return START + self.looks * LOOK_SECONDS

    def step(self, tuning: Tuning) -> Window:
        self.looks += 1
        skip = granted(tuning.levels, self.crowd)
        hits = skip > 0
        ratio = self.quality.ratio(skip[hits], self.crowd[hits])
        self.served.append((float(hits.mean()), float(ratio.mean()) if hits.any() else 1.0))
        self.newest = Batch(self.now - LOOK_SECONDS, self.now, self._compare(tuning.levels))
        self.batches.append(self.newest)
        if len(self.batches) > MOST_BATCHES:
            self.batches = [_joined(*two) for two in zip(self.batches[::2], self.batches[1::2], strict=True)]
        skipped = float(skip.mean()) / 100
        self.requests = self.requests + self.per_look if tuning == self.followed else self.per_look
        self.followed = tuning
        noise = self.rng.normal(0, self.saved_noise / math.sqrt(self.requests), len(SHADOW_MULTIPLES) + 1)
        ssr = [
            float(np.clip(self.saved(m * tuning.capacity_bytes) + e, 0, 1))
            for m, e in zip(SHADOW_MULTIPLES, noise[1:], strict=True)
        ]
        return Window(
            batches=tuple(self.batches),
            steps=1e5,
            steps_skipped=1e5 * skipped,
            requests=self.requests,
            p95_seconds=self.p95(skipped),
            shadow_ssr=dict(zip(SHADOW_MULTIPLES, ssr, strict=True)),
            measured_ssr=float(np.clip(self.saved(tuning.capacity_bytes) + noise[0], 0, 1)),
            shadow_due=self.due,
            shadow_dropped=0,
            newest=self.now - 15,
        )

    def whole_run(self) -> float:
        """Mean quality ratio of all hits served so far; 1 without any."""
        hits = sum(share for share, _ in self.served)
        return sum(share * ratio for share, ratio in self.served) / hits if hits else 1.0

    def truth(self, skip: int, lowest: float) -> float:
        """The lowest bin edge from which on each bin keeps the target."""
        at = CLOSED
        for index in reversed(range(BINS)):
            inside = self.crowd[(self.crowd >= EDGES[index]) & (self.crowd < EDGES[index + 1])]
            middle = inside if len(inside) else np.array([(EDGES[index] + EDGES[index + 1]) / 2])
            kept = self.quality.ratio(np.full(len(middle), skip), middle).mean()
            if kept < self.quality.target or EDGES[index] < lowest:
                break
            at = EDGES[index]
        return at

    def off(self, level: Level, lowest: float) -> int:
        """Bins between the level and the truth in which at least 1% of the requests lie; below 0: too loose."""
        truth = self.truth(level.skip_percent, lowest)
        between = [i for i in range(BINS) if min(truth, level.similarity) <= EDGES[i] < max(truth, level.similarity)]
        busy = [i for i in between if np.mean((self.crowd >= EDGES[i]) & (self.crowd < EDGES[i + 1])) >= 0.01]
        return len(busy) if level.similarity > truth else -len(busy)

    def _compare(self, levels: tuple[Level, ...]) -> dict[tuple[int, float], PairSums]:
        similarity = self.rng.beta(*self.similarities, self.due)
        served, tried = granted(levels, similarity), probed(levels, similarity)
        skip, at = np.concatenate([served, tried]), np.concatenate([similarity, similarity])
        skip, at = skip[skip > 0], at[skip > 0]
        if not len(skip):
            return {}
        q_c, q_u = self.quality.draw(self.rng, skip, at)
        index = np.minimum((at * BINS + 1e-9).astype(int), BINS - 1)
        return dict(_sums(skip, index, q_c, q_u))


def _joined(first: Batch, second: Batch) -> Batch:
    pairs = dict(first.pairs)
    for key, sums in second.pairs.items():
        before = pairs.get(key, PairSums(0, 0, 0, 0, 0, 0))
        pairs[key] = PairSums(*(a + b for a, b in zip(astuple(before), astuple(sums), strict=True)))
    return Batch(first.start, second.end, pairs)


def granted(levels: tuple[Level, ...], similarity: Array) -> Array:
    """Levels.skip_at for many; 0 = miss."""
    skip = np.zeros(len(similarity))
    for level in levels:
        skip[similarity >= level.similarity] = level.skip_percent
    return skip


def probed(levels: tuple[Level, ...], similarity: Array) -> Array:
    """shadow.percent_to_try for many; 0 = nothing to try. (A test holds them together.)"""
    skip = np.zeros(len(similarity))
    for level in reversed(levels):
        near = similarity >= level.similarity - REACH - 1e-9
        skip = np.where(similarity < level.similarity, np.where(near, float(level.skip_percent), 0.0), skip)
    return skip


def _sums(
    skip: Array, index: NDArray[np.int64], q_c: Array, q_u: Array
) -> Iterator[tuple[tuple[int, float], PairSums]]:
    key = skip.astype(int) * BINS + index
    columns = (np.ones(len(key)), q_c, q_u, q_c**2, q_u**2, q_c * q_u)
    totals = np.stack([np.bincount(key, column) for column in columns], axis=1)
    for at in np.unique(key):
        yield (int(at) // BINS, EDGES[int(at) % BINS]), PairSums(*(float(total) for total in totals[at]))


def goals(target: float = 0.95, lowest: float = 0.3, p95: float | None = None, **capacity: float) -> Goals:
    low, high = int(capacity.get("low", 1)), int(capacity.get("high", 1))
    return Goals(target, p95, low, high, capacity.get("min_gain", 0.02), lowest)


SKIPS = (13, 25, 38, 50)


def random_world(seed: int) -> tuple[World, Tuning]:
    """A world and a table of levels to start from, from two bins too loose to four too tight."""
    rng = np.random.default_rng([7, seed])
    crossing = dict(zip(SKIPS, np.sort(rng.uniform(0.4, 1.02, len(SKIPS))), strict=True))
    if rng.random() < 0.5:  # scores as a CLIPModel's cosines of photographs lie
        scores = {"uncached": 0.31, "spread": 0.04, "noise": 0.02}
    else:  # as those of the bundled model
        scores = {"uncached": 0.74, "spread": 0.1, "noise": rng.uniform(0.03, 0.1)}
    quality = Quality(
        crossing,
        slope=rng.uniform(0.2, 1.0),
        target=0.95,
        failures=float(rng.choice([0.0, 0.01])),
        **scores,
    )
    world = World(quality, seed, similarities=(rng.uniform(3, 8), rng.uniform(1.5, 4)))
    off = rng.integers(-2, 5, len(SKIPS))
    return world, Tuning(start_levels(world, off), 2**20)


def hopeless_world(seed: int) -> tuple[World, Tuning]:
    """Nothing keeps the target, and everything nearly does; all levels are closed. Whatever is loosened is wrong.

    Most prompts are very similar, so that there are many pairs to be led astray by.
    """
    random, _ = random_world(seed)
    world = World(random.quality, seed, similarities=(9.0, 1.2))
    world.quality = replace(world.quality, crossing=dict.fromkeys(SKIPS, 0.0), slope=0.0, best=0.945)
    return world, Tuning(tuple(Level(skip, CLOSED) for skip in SKIPS), 2**20)


def start_levels(world: World, off: NDArray[np.int64]) -> tuple[Level, ...]:
    """Levels so many bins above the truth, as high as they must to rise."""
    table: list[Level] = []
    for skip, bins in zip(sorted(world.quality.crossing), off, strict=True):
        at = round(min(world.truth(skip, 0.3), 1.0) / 0.05) + int(bins)
        floor = table[-1].similarity if table else 0.3
        table.append(Level(skip, max(floor, EDGES[min(BINS, max(0, at))])))
    return tuple(table)
