"""Compares tuner and scaling with other ways in simulated time: the device hours of each at the same p95. Pure."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from diffcache_core.scaling import ScalingBounds
from diffcache_core.simulator.loops.cache import CachedWork, CacheSettings, percentile
from diffcache_core.simulator.loops.pods import Device, Outcome, Scaler, simulate_pods, simulate_recorded
from diffcache_core.simulator.loops.scalers import BacklogScaler, FixedScaler, RequestScaler, UtilisationScaler
from diffcache_core.simulator.loops.stream import Stream

UTILISATION = 0.7
"""Target of the control by utilisation in its first run: a usual value."""
SEARCH_RUNS = 8
"""Runs of the search for the target at which a control has our p95. Each halves the range on a logarithmic scale."""


@dataclass(frozen=True)
class Setting:
    """The inputs of a simulation."""

    stream: Stream
    cache: CacheSettings
    bounds: ScalingBounds
    device: Device
    seed: int

    @property
    def end(self) -> float:
        return self.stream.times[-1]


@dataclass(frozen=True)
class Cost:
    """The cost of one run."""

    device_hours: float
    p95_seconds: float
    most_replicas: int
    changes: int  # how often the number of pods changed
    target: float | None  # the scaler's target; None: it has none


@dataclass(frozen=True)
class Row:
    """One way to run the pods. `at_equal_p95`: its cheapest run whose p95 is at most ours; if there is none, the run
    with its lowest p95.

    `ours_there`: if that p95 is far below ours, our way once more with a lower target, so that it is as fast.
    """

    name: str
    cost: Cost
    at_equal_p95: Cost
    steps_saved_ratio: float
    quality_ratio: float | None
    ours_there: Cost | None = None


@dataclass(frozen=True)
class Comparison:
    ours: CachedWork
    ours_replicas: Outcome
    uncached_replicas: Outcome  # our scaler without a cache
    rows: tuple[Row, ...]  # ours first


def compare(setting: Setting, on_row: Callable[[str], None] = lambda name: None) -> Comparison:
    """Runs our way, and every control twice: with its usual target, and at our p95. Calls `on_row` with the name of
    each row before it runs."""
    bounds, stream = setting.bounds, setting.stream
    on_row("ours")
    tuned = CachedWork(stream, setting.cache, setting.seed)
    outcome = _run(tuned, setting)
    ours = _cost(outcome, bounds.target_backlog_seconds)
    rows = [Row(OURS, ours, ours, tuned.steps_saved_ratio, tuned.quality_ratio)]
    fixed = CachedWork(stream, replace(setting.cache, goals=None, shadow_percent=0), setting.seed)
    _run(fixed, setting)
    whole = [float(request.steps) for request in stream.requests]
    for name, work, left, kind in (
        ("tuned levels, utilisation", tuned, tuned.steps_left, Utilisation),
        ("tuned levels, requests a pod", tuned, tuned.steps_left, Requests),
        ("tuned levels, constant pods", tuned, tuned.steps_left, Constant),
        ("first levels, backlog", fixed, fixed.steps_left, Backlog),
        ("first levels, utilisation", fixed, fixed.steps_left, Utilisation),
        ("no cache, backlog", None, whole, Backlog),
        ("no cache, utilisation", None, whole, Utilisation),
    ):
        on_row(name)
        control = kind(setting, left)
        found = control.search(ours.p95_seconds)
        ratio, quality = (0.0, None) if work is None else (work.steps_saved_ratio, work.quality_ratio)
        is_faster = found.p95_seconds < FAR_BELOW * ours.p95_seconds
        there = Backlog(setting, tuned.steps_left).search(found.p95_seconds) if is_faster else None
        rows.append(Row(name, control.usual(), found, ratio, quality, there))
    uncached = Backlog(setting, whole).outcome(bounds.target_backlog_seconds)
    return Comparison(tuned, outcome, uncached, tuple(rows))


OURS = "ours: tuned levels and capacity, backlog"


def _run(work: CachedWork, setting: Setting) -> Outcome:
    bounds = setting.bounds
    return simulate_pods(
        setting.stream.times,
        work,
        BacklogScaler(bounds),
        setting.device,
        replicas=bounds.min_replicas,
        end=setting.end,
    )


def _cost(outcome: Outcome, target: float | None) -> Cost:
    p95 = percentile(sorted(outcome.seconds), 95) or 0.0
    counts = [count for _, count in outcome.replicas]
    return Cost(outcome.pod_seconds / 3600, p95, max(counts), len(counts) - 1, target)


# ---- controls ------------------------------------------------------------------------------------------------------


class Control(ABC):
    """A scaler with one target. `steps_left`: for each request the steps that the cache left to run."""

    def __init__(self, setting: Setting, steps_left: Sequence[float]) -> None:
        self.setting, self.steps_left = setting, steps_left

    def usual(self) -> Cost:
        return self.run(self.usual_target)

    def search(self, p95: float) -> Cost:
        """Returns the cheapest run found whose p95 (seconds) is at most this; if there is none, the one with the lowest
        p95."""
        found = list(self.runs(p95))
        good = [cost for cost in found if cost.p95_seconds <= p95 * EQUAL]
        return min(good, key=lambda c: c.device_hours) if good else min(found, key=lambda c: c.p95_seconds)

    @abstractmethod
    def runs(self, p95: float) -> Iterator[Cost]:
        """Yields the runs that the search considers."""

    def run(self, target: float) -> Cost:
        return _cost(self.outcome(target), target)

    def outcome(self, target: float) -> Outcome:
        setting = self.setting
        return simulate_recorded(
            setting.stream.times,
            self.steps_left,
            self.scaler(target),
            setting.device,
            replicas=self.first(target),
            end=setting.end,
        )

    def first(self, target: float) -> int:
        return self.setting.bounds.min_replicas

    @abstractmethod
    def scaler(self, target: float) -> Scaler: ...

    @property
    @abstractmethod
    def usual_target(self) -> float: ...

    @property
    def _alone_seconds(self) -> float:
        """Mean seconds of a request that runs alone on a device."""
        return sum(self.steps_left) / len(self.steps_left) * self.setting.device.seconds_per_step


class Halving(Control):
    """A control whose higher targets mean fewer pods and a higher p95."""

    @property
    @abstractmethod
    def range(self) -> tuple[float, float]:
        """Lowest and highest target of the search."""

    def runs(self, p95: float) -> Iterator[Cost]:
        low, high = (math.log(target) for target in self.range)
        for _ in range(SEARCH_RUNS):
            middle = (low + high) / 2
            cost = self.run(math.exp(middle))
            yield cost
            low, high = (middle, high) if cost.p95_seconds <= p95 else (low, middle)


EQUAL = 1.01
"""A p95 up to this multiple of ours counts as equal, because pods are whole numbers."""
FAR_BELOW = 0.9
"""A p95 below this multiple of ours does not count as equal: a faster way may cost more."""


class Backlog(Halving):
    def scaler(self, target: float) -> Scaler:
        return BacklogScaler(replace(self.setting.bounds, target_backlog_seconds=target))

    @property
    def usual_target(self) -> float:
        return self.setting.bounds.target_backlog_seconds

    @property
    def range(self) -> tuple[float, float]:
        return self.usual_target / 32, self.usual_target * 8


class Utilisation(Halving):
    def scaler(self, target: float) -> Scaler:
        return UtilisationScaler(self.setting.bounds, target)

    @property
    def usual_target(self) -> float:
        return UTILISATION

    @property
    def range(self) -> tuple[float, float]:
        return 0.02, 0.99


class Requests(Halving):
    def scaler(self, target: float) -> Scaler:
        return RequestScaler(self.setting.bounds, target)

    @property
    def usual_target(self) -> float:
        """The number of requests that take as many seconds as our backlog target."""
        return max(1.0, self.setting.bounds.target_backlog_seconds / max(1e-9, self._alone_seconds))

    @property
    def range(self) -> tuple[float, float]:
        return self.usual_target / 32, self.usual_target * 8


class Constant(Control):
    """A fixed number of pods, which is the target."""

    def scaler(self, target: float) -> Scaler:
        return FixedScaler(round(target))

    def first(self, target: float) -> int:
        return round(target)

    def runs(self, p95: float) -> Iterator[Cost]:
        for count in itertools.count(self.setting.bounds.min_replicas):
            cost = self.run(count)
            yield cost
            if cost.p95_seconds <= p95 * EQUAL or count >= self.setting.bounds.max_replicas:
                return

    @property
    def usual_target(self) -> float:
        """The number of pods for the mean load at a busy share of UTILISATION."""
        span = max(1.0, self.setting.end - self.setting.stream.times[0])
        mean = sum(self.steps_left) * self.setting.device.seconds_per_step / span
        return max(
            self.setting.bounds.min_replicas, min(self.setting.bounds.max_replicas, math.ceil(mean / UTILISATION))
        )
