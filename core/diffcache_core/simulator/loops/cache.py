"""A shared cache with its comparisons, its simulated caches and its tuner in simulated time. Pure.

The functions that run in the cluster decide here, too: `SimulatedCache` chooses and evicts,
`diffcache_core.tuning.comparisons` decides which requests are compared and at which level,
`diffcache_core.tuning.tuner` decides what moves. Only the quality of pictures is assumed.
"""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import LCBFU
from diffcache_core.cache.resume import Level, Levels, skip_to_k
from diffcache_core.cache.states import StateKind
from diffcache_core.names import SHADOW_MULTIPLES, similarity_bin
from diffcache_core.simulator.cache import Neighbour, Outcome, SimulatedCache, SimulatedRequest
from diffcache_core.simulator.loops.stream import Stream
from diffcache_core.tuning.comparisons import (
    ALLOWED_SHARE,
    WORST_COST,
    MeanCost,
    StepBudget,
    fraction_of,
    granted_percent,
    is_due,
    moments,
    percent_to_try,
)
from diffcache_core.tuning.tuner import Batch, Decision, Goals, PairSums, Tuning, Window, evidence_start, tune

TUNE_SECONDS = 600.0
SAMPLE_SECONDS = 3600.0  # between two points of a plot


@dataclass(frozen=True)
class QualityCurve:
    """The assumed truth that the tuner has to find: the quality of a resumed picture divided by that of the same
    picture without the cache.

    ratio = 1 - loss (skip / 100)^1.5 (1 - similarity): the same prompt loses nothing, and losses rise faster than the
    skip, as calibrations show. Scores are normally distributed, as CLIPScores nearly are.
    """

    loss: float = 1.4
    mean: float = 0.30  # quality of a picture drawn without the cache
    spread: float = 0.03  # its standard deviation
    noise: float = 0.02  # standard deviation of the noise that resuming adds

    def ratio(self, skip_percent: float, similarity: float) -> float:
        return 1 - self.loss * (skip_percent / 100) ** 1.5 * (1 - similarity)

    def threshold(self, skip_percent: int, target: float) -> float:
        """Returns the similarity from which on skipping `skip_percent` percent keeps the share `target` of the
        quality."""
        return max(0.0, 1 - (1 - target) / (self.loss * (skip_percent / 100) ** 1.5))


@dataclass(frozen=True)
class CacheSettings:
    start: Tuning
    reseed_skip_percent: int
    state_bytes: int  # of one kept picture
    quality: QualityCurve
    shadow_percent: int = 0
    goals: Goals | None = None  # None: nothing is tuned


@dataclass(frozen=True)
class Sample:
    """One point of the plots."""

    at: float
    replicas: int
    backlog_seconds: float  # per pod, the highest since the last sample
    steps: float  # since the last sample
    skipped: float
    p95_seconds: float | None  # of the requests answered since the last sample
    tuning: Tuning


@dataclass
class CachedWork:
    """Implements `pods.Work`: it asks the cache when a request arrives, and keeps the result at its end."""

    stream: Stream
    settings: CacheSettings
    seed: int
    steps_left: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    decisions: list[tuple[float, Decision]] = field(default_factory=list)
    steps: int = 0
    skipped: int = 0
    shadow_steps: int = 0
    quality_sum: float = 0.0  # sum of true ratios over approximate hits
    hits: int = 0  # approximate ones
    reasons: dict[str, int] = field(default_factory=dict)  # how often the tuner gave each reason
    batches: list[Batch] = field(default_factory=list)  # of comparisons, one for each look of the tuner

    def __post_init__(self) -> None:
        settings = self.settings
        self.tuning = settings.start
        self._multiples: Sequence[float] = SHADOW_MULTIPLES if settings.goals is not None else ()
        self._cache = self._new_cache(1.0)
        self._shadows = {multiple: self._new_cache(multiple) for multiple in self._multiples}
        self._under_way: dict[int, _UnderWay] = {}
        self._random = random.Random(self.seed)
        self._budget, self._cost = StepBudget(), MeanCost()
        self._due = self._dropped = 0
        self._pairs: dict[tuple[int, float], PairSums] = {}
        self._changed_at: float | None = None
        self._begun = self.stream.times[0] if self.stream.times else 0.0
        self._window = _Window(dict.fromkeys(self._multiples, 0))
        self._next_tune = self._batch_start = self._begun
        self._next_sample = self._begun
        self._sampled = (0, 0)
        self._recent: list[float] = []
        self._backlog = 0.0
        self._newest = self._begun

    # ---- pods.Work -------------------------------------------------------------------------------------------------

    def arrive(self, request: int, now: float) -> float:
        wish = self.stream.requests[request]
        due = is_due(str(request), self._cost.share(self.settings.shadow_percent))
        due = due and self._budget.covers(WORST_COST * wish.steps)
        outcome = self._cache.look_up(wish, self.stream.nearest(request, self._cache))
        near = self.stream.nearest(request, self._cache)(1)[0] if due else ()
        shadows = {m: c.look_up(wish, self.stream.nearest(request, c)) for m, c in self._shadows.items()}
        self._under_way[request] = _UnderWay(outcome, shadows, due, near[0] if near else None)
        self._count(wish, outcome, shadows)
        left = wish.steps - outcome.k
        self.steps_left.append(left)
        return left

    def finish(self, request: int, now: float, seconds: float) -> None:
        wish, under_way = self.stream.requests[request], self._under_way.pop(request)
        sizes = {StateKind.CLEAN: self.settings.state_bytes}
        self._cache.keep(request, wish, under_way.outcome, sizes)
        for multiple, cache in self._shadows.items():
            cache.keep(request, wish, under_way.shadows[multiple], sizes)
        self._budget.earn(wish.steps, self.settings.shadow_percent)
        if under_way.is_due:
            self._compare(request, wish, under_way)
        bisect.insort(self._window.seconds, seconds)
        self._recent.append(seconds)
        self._newest = now

    def look(self, now: float, replicas: int, backlog_seconds: float) -> None:
        if self.settings.goals is not None and now >= self._next_tune:
            self._next_tune = now + TUNE_SECONDS
            self._tune(self.settings.goals, now)
        self._backlog = max(self._backlog, backlog_seconds)
        if now >= self._next_sample:
            self._next_sample = now + SAMPLE_SECONDS
            steps, skipped = self._sampled
            p95 = percentile(sorted(self._recent), 95)
            moved = self.steps - steps, self.skipped - skipped
            self.samples.append(Sample(now, replicas, self._backlog, *moved, p95, self.tuning))
            self._sampled, self._recent, self._backlog = (self.steps, self.skipped), [], 0.0

    # ---- results ---------------------------------------------------------------------------------------------------

    @property
    def steps_saved_ratio(self) -> float:
        return self.skipped / self.steps if self.steps else 0.0

    @property
    def quality_ratio(self) -> float | None:
        """The true mean ratio over approximate hits; None if there were none."""
        return self.quality_sum / self.hits if self.hits else None

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _new_cache(self, multiple: float) -> SimulatedCache:
        return SimulatedCache(LCBFU(), self._levels, Budget(bytes=multiple * self.tuning.capacity_bytes))

    @property
    def _levels(self) -> Levels:
        return Levels(self.tuning.levels, self.settings.reseed_skip_percent)

    def _count(self, wish: SimulatedRequest, outcome: Outcome, shadows: Mapping[float, Outcome]) -> None:
        self.steps += wish.steps
        self.skipped += outcome.k
        if outcome.similarity is not None and not outcome.is_exact:
            self.hits += 1
            self.quality_sum += self.settings.quality.ratio(100 * outcome.k / wish.steps, outcome.similarity)
        window = self._window
        window.requests += 1
        window.steps += wish.steps
        window.skipped += outcome.k
        for multiple, other in shadows.items():
            window.shadow_skipped[multiple] += other.k

    def _compare(self, request: int, wish: SimulatedRequest, under_way: _UnderWay) -> None:
        """Compares like the serving process: a hit with its picture without the cache, and a neighbour at a skip to
        try."""
        outcome, levels = under_way.outcome, self._levels
        self._due += 1
        hit = None
        if outcome.similarity is not None and not outcome.is_exact:
            hit = granted_percent(levels, outcome.k, wish.steps, outcome.granted_skip)
        can_compare = not outcome.is_exact and (outcome.k == 0 or hit is not None)
        probe = self._probe(request, wish, under_way, levels) if can_compare else None
        if hit is None and probe is None:
            self._cost.add(0.0)
            return
        near = under_way.near
        cost = (0 if hit is None else wish.steps) + (0 if probe is None else wish.steps - skip_to_k(probe, wish.steps))
        self._cost.add(cost / wish.steps)
        if not self._budget.take(cost):
            self._dropped += 1
            return
        self.shadow_steps += cost
        curve = self.settings.quality
        uncached = self._random.gauss(curve.mean, curve.spread)
        if hit is not None and outcome.similarity is not None:
            self._add_pair(hit, outcome.similarity, uncached)
        if probe is not None and near is not None:
            self._add_pair(probe, near.similarity, uncached)

    def _probe(self, request: int, wish: SimulatedRequest, under_way: _UnderWay, levels: Levels) -> int | None:
        near = under_way.near
        if near is None:
            return None
        other = self.stream.requests[near.entry]
        is_reseed = other.prompt == wish.prompt and other.seed != wish.seed
        allowed_too = under_way.outcome.k == 0 and fraction_of(str(request), "allowed") < ALLOWED_SHARE
        cap = levels.reseed_skip_percent if is_reseed else 100
        return percent_to_try(levels, near.similarity, wish.steps, cap=cap, allowed_too=allowed_too)

    def _add_pair(self, percent: int, similarity: float, uncached: float) -> None:
        curve = self.settings.quality
        cached = uncached * curve.ratio(percent, similarity) + self._random.gauss(0, curve.noise)
        key = (percent, float(similarity_bin(similarity)))
        old = self._pairs.get(key, PairSums(0, 0, 0, 0, 0, 0))
        new = moments(cached, uncached)
        sums = {name: getattr(old, name) + value for name, value in new.items()}
        self._pairs[key] = PairSums(old.n + 1, **sums)

    def _tune(self, goals: Goals, now: float) -> None:
        if self._pairs:
            self.batches.append(Batch(self._batch_start, now, self._pairs))
            self._pairs = {}
        self._batch_start = now
        start = evidence_start(now, self._begun)
        decision = tune(self.tuning, self._measured(start), goals, now=now, changed_at=self._changed_at)
        self.reasons[decision.reason] = self.reasons.get(decision.reason, 0) + 1
        if decision.frozen or decision.tuning == self.tuning:
            return
        self.decisions.append((now, decision))
        self.tuning, self._changed_at = decision.tuning, now
        self._window = _Window(dict.fromkeys(self._multiples, 0))
        for multiple, cache in ((1.0, self._cache), *self._shadows.items()):
            cache.levels = self._levels
            cache.resize(Budget(bytes=multiple * self.tuning.capacity_bytes))

    def _measured(self, since: float) -> Window:
        window = self._window
        steps = window.steps
        return Window(
            batches=[batch for batch in self.batches if batch.start >= since],
            steps=steps,
            steps_skipped=window.skipped,
            requests=window.requests,
            p95_seconds=percentile(window.seconds, 95),
            shadow_ssr={m: skipped / steps for m, skipped in window.shadow_skipped.items()} if steps else {},
            measured_ssr=window.skipped / steps if steps else None,
            shadow_due=self._due,
            shadow_dropped=self._dropped,
            newest=self._newest,
        )


@dataclass(frozen=True)
class _UnderWay:
    outcome: Outcome
    shadows: Mapping[float, Outcome]
    is_due: bool
    near: Neighbour | None  # the nearest entry at its arrival


@dataclass
class _Window:
    """Counts since the tuning in force took effect."""

    shadow_skipped: dict[float, int]
    requests: int = 0
    steps: int = 0
    skipped: int = 0
    seconds: list[float] = field(default_factory=list)  # rising


def percentile(rising: Sequence[float], percent: float) -> float | None:
    """Returns the percentile by nearest rank of rising values; None if there are no values."""
    return rising[math.ceil(percent / 100 * len(rising)) - 1] if rising else None


def describe_levels(levels: Sequence[Level]) -> str:
    return ", ".join(f"{level.skip_percent}% from {level.similarity:g}" for level in levels) or "none"
