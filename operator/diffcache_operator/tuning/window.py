"""Raw counters of Prometheus become the tuner's window. Pure.

Counters are read as they are, without `rate` or `increase`: those extrapolate, and the tuner's bounds want counts. A
counter begins again at 0 when its process does, which `diffcache_start_time_seconds` shows, and so does a fall.
Series are distinguished by their pod and their own labels, not by what a scrape adds: a pod that comes back with
another address goes on.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from diffcache_core.foreign import quoted
from diffcache_core.histograms import quantile
from diffcache_core.names import (
    MOMENTS,
    QUALITY_PAIRS,
    QUALITY_SUM,
    REQUEST_SECONDS,
    SHADOW_CACHE_SKIPPED,
    SHADOW_CACHE_STEPS,
    SHADOW_RUNS,
    START_TIME,
    STEPS,
    STEPS_SKIPPED,
)
from diffcache_core.tuning.tuner import Batch, PairSums, Window
from diffcache_operator.series import Series

DURATION_BUCKETS = REQUEST_SECONDS + "_bucket"
OWN_LABELS: Mapping[str, tuple[str, ...]] = {
    START_TIME: (),
    STEPS: (),
    STEPS_SKIPPED: (),
    DURATION_BUCKETS: ("model", "result", "le"),
    QUALITY_PAIRS: ("skip", "similarity"),
    QUALITY_SUM: ("skip", "similarity", "moment"),
    SHADOW_CACHE_STEPS: ("multiple",),
    SHADOW_CACHE_SKIPPED: ("multiple",),
    SHADOW_RUNS: ("outcome",),
}
"""The labels that the pods themselves put on what the tuner reads."""
COMPARISONS = (START_TIME, QUALITY_PAIRS, QUALITY_SUM)
FIGURES = (START_TIME, STEPS, STEPS_SKIPPED, DURATION_BUCKETS, SHADOW_CACHE_STEPS, SHADOW_CACHE_SKIPPED, SHADOW_RUNS)

SHORTEST_STEP = 30.0
"""Seconds between two points at least: a usual time between two scrapes. Figures count from so long after the pods have
taken their tuning over, so that the first point was scraped after that, too."""
MAX_BATCHES = 144
"""Batches of a grid at most. More lose less of what a pod counted between the last point and its end, and cost more."""
MAX_COMPARISONS = 400
"""Pairs of a level and a bin: 20 levels and 20 bins. More would be another program's, and each costs memory a batch."""
MAX_JOBS = 100
"""Of scrapes, by which a pod's series may differ."""
MAX_TROUBLES = 10
"""That are kept of one grid: one is reported, and a foreign server may think up any number."""
LONGEST = 24 * 3600.0
"""Seconds that figures reach back: a day holds its rhythm. Comparisons reach further, see `tuning.evidence_start`."""


@dataclass(frozen=True)
class Grid:
    """Equally spaced points in time."""

    start: float  # seconds since the epoch
    step: float
    batches: int

    @classmethod
    def anchored(cls, now: float, since: float) -> Grid | None:
        """From `since` on, in batches that stay the same from look to look but for a doubling of the step now and then:
        the tuner's bounds hold for groups that are fixed beforehand. None as long as there is no whole batch."""
        step = SHORTEST_STEP
        while now - since > MAX_BATCHES * step:
            step *= 2
        batches = int((now - since) // step)
        return cls(since, step, batches) if batches > 0 else None

    @classmethod
    def until(cls, now: float, since: float) -> Grid | None:
        """The last point is now. None as long as there is no whole batch."""
        step = max(SHORTEST_STEP, math.ceil((now - since) / MAX_BATCHES))
        batches = int((now - since) // step)
        return cls(now - batches * step, step, batches) if batches > 0 else None

    @property
    def end(self) -> float:
        return self.start + self.step * self.batches

    def point(self, at: float) -> int | None:
        """Which point a time is; None if it is none."""
        index = round((at - self.start) / self.step) if math.isfinite(at) else -1
        return index if 0 <= index <= self.batches and abs(self.start + index * self.step - at) < 0.5 else None


@dataclass(frozen=True)
class Span:
    """From when on what counts, in seconds since the epoch."""

    comparisons: float
    figures: float  # when all ready pods began to follow the tuning in force

    def grids(self, now: float) -> tuple[Grid, Grid] | None:
        """For comparisons and for figures; None as long as there is nothing to count."""
        comparisons = Grid.anchored(now, self.comparisons)
        figures = Grid.until(now, max(self.figures + SHORTEST_STEP, now - LONGEST))
        return None if comparisons is None or figures is None else (comparisons, figures)


@dataclass(frozen=True)
class Reading:
    """A window, and what is wrong with what it was made of: then nothing may be decided from it."""

    window: Window
    bad: tuple[str, ...] = ()


Own = tuple[str, ...]  # values of a metric's own labels
_Points = list[float | None]  # of one counter, by the grid


def read(compared: Counters, counted: Counters, newest: Newest) -> Reading:
    pairs, rises = compared.rises(), counted.rises()
    bad = compared.bad | counted.bad
    if len(pairs[QUALITY_PAIRS]) > MAX_COMPARISONS:
        bad.add(f"{QUALITY_PAIRS} has {len(pairs[QUALITY_PAIRS])} series a pod: are they another program's?")
    steps, skipped = _total(rises[STEPS]), _total(rises[STEPS_SKIPPED])
    runs = {own[0]: sum(values) for own, values in rises[SHADOW_RUNS].items()}
    buckets = _by_bound(rises[DURATION_BUCKETS])
    window = Window(
        batches=[] if bad else _batches(pairs, compared.grid),
        steps=steps,
        steps_skipped=skipped,
        requests=max(buckets.values(), default=0.0),
        p95_seconds=quantile(0.95, buckets),
        shadow_ssr=_shadow_ratios(rises),
        measured_ssr=skipped / steps if steps > 0 else None,
        shadow_due=sum(runs.values()),
        shadow_dropped=runs.get("dropped", 0.0),
        newest=newest.at,
    )
    return Reading(window, tuple(sorted(bad)))


Rises = dict[str, dict[Own, "array[float]"]]
"""By metric and own labels, over all pods: the rise in each batch."""


@dataclass
class Newest:
    """The time of the latest sample of these pods, in seconds since the epoch."""

    pods: frozenset[str]
    at: float | None = None

    def add(self, one: Series) -> None:
        """Of one pod, with the time as the value."""
        for _, value in one.values:
            if one.labels.get("pod", "") in self.pods and math.isfinite(value):
                self.at = value if self.at is None else max(self.at, value)


@dataclass
class Counters:
    """What these pods have counted at the points of a grid. Other pods' series do not count, whatever their names.

    A counter takes ten bytes a point: that of a large cache are millions.
    """

    grid: Grid
    pods: frozenset[str]
    bad: set[str] = field(default_factory=set)
    _counters: dict[tuple[str, str, Own], _Counter] = field(default_factory=dict)
    _jobs: list[str] = field(default_factory=list)

    def add(self, one: Series) -> None:
        """One series; what cannot be a counter's value is left out and reported."""
        name, pod = one.name, one.labels.get("pod", "")
        if name not in OWN_LABELS or pod not in self.pods:
            return
        own = tuple(one.labels.get(label, "") for label in OWN_LABELS[name])
        if not _labels_hold(name, own):
            self._tell(f"{name} of {pod} has labels that it cannot have: is that series another program's?")
            return
        job = self._job(one.labels.get("job", ""))
        if job is None:
            self._tell(f"{pod} is scraped by more than {MAX_JOBS} jobs: remove all but one")
            return
        counter = self._counters.get((name, pod, own))
        if counter is None:
            counter = self._counters[name, pod, own] = _Counter(self.grid.batches + 1)
        for at, value in one.values:
            index = self.grid.point(at)
            if index is None:
                continue
            if not math.isfinite(value) or value < 0:
                self._tell(f"{name} of {pod} is {value}, which no counter can be")
            elif not counter.set(index, value, job):
                names = sorted(quoted(self._jobs[which], 63) for which in (job, counter.jobs[index]))
                self._tell(f"{pod} is scraped by the jobs {' and '.join(names)}: remove one")

    def _job(self, name: str) -> int | None:
        """Its number; None when there are too many."""
        if name not in self._jobs:
            if len(self._jobs) == MAX_JOBS:
                return None
            self._jobs.append(name)
        return self._jobs.index(name)

    def _tell(self, trouble: str) -> None:
        if len(self.bad) < MAX_TROUBLES:
            self.bad.add(trouble)

    def rises(self) -> Rises:
        """Of every metric, summed over pods."""
        starts = {pod: one.points() for (name, pod, _), one in self._counters.items() if name == START_TIME}
        out: Rises = {name: {} for name in OWN_LABELS if name != START_TIME}
        for (name, pod, own), counter in self._counters.items():
            if name == START_TIME:
                continue
            if pod not in starts:
                self.bad.add(f"{pod} does not report when it began: `kubectl diffcache upgrade` replaces an old image")
                continue
            rise = _rise(counter.points(), starts[pod], self.grid)
            sums = out[name].setdefault(own, array("d", bytes(8 * self.grid.batches)))
            for index, value in enumerate(rise):
                sums[index] += value
        return out


class _Counter:
    """A value a point, and the number of the job that scraped it."""

    def __init__(self, points: int) -> None:
        self._values, self.jobs = array("d", [math.nan]) * points, bytearray(points)

    def set(self, index: int, value: float, job: int) -> bool:
        """Whether no other job has given this point."""
        before = self._values[index]
        if not math.isnan(before) and self.jobs[index] != job:
            return False
        self._values[index], self.jobs[index] = value if math.isnan(before) else min(before, value), job
        return True

    def points(self) -> _Points:
        return [None if math.isnan(value) else value for value in self._values]


def _rise(points: _Points, starts: _Points, grid: Grid) -> list[float]:
    """Of one counter, for each batch; over a gap it falls into the batch in which the counter is seen again."""
    out = [0.0] * grid.batches
    last: float | None = None
    began: float | None = None  # of the process that `last` is from
    for index, value in enumerate(points):
        start = starts[index]
        if value is None or start is None:
            # A series that comes into being while its pod is watched begins at 0.
            if value is None and start is not None and last is None:
                last, began = 0.0, start
            continue
        if last is None:
            base = 0.0 if start >= grid.start else value  # the process is younger than the window, or older
        else:
            base = 0.0 if start != began or value < last else last
        if index:
            out[index - 1] += value - base
        last, began = value, start
    return out


def _labels_hold(name: str, own: Own) -> bool:
    """Skip, similarity, multiple and bucket are numbers, a moment is one of five."""
    labels = dict(zip(OWN_LABELS[name], own, strict=True))
    try:
        numbers = [float(labels[label]) for label in ("similarity", "multiple", "le") if label in labels]
        int(labels.get("skip", "0"))
    except ValueError:
        return False
    return not any(map(math.isnan, numbers)) and labels.get("moment", "c") in MOMENTS


def _total(rises: Mapping[Own, Sequence[float]]) -> float:
    return sum(map(sum, rises.values()))


def _shadow_ratios(rises: Rises) -> dict[float, float]:
    """Steps saved ratio by multiple of the capacity in force; without those that were asked for nothing."""
    asked = {own: sum(values) for own, values in rises[SHADOW_CACHE_STEPS].items()}
    saved = {own: sum(values) for own, values in rises[SHADOW_CACHE_SKIPPED].items()}
    return {float(own[0]): saved.get(own, 0.0) / steps for own, steps in asked.items() if steps > 0}


def _batches(rises: Rises, grid: Grid) -> list[Batch]:
    """A scrape may fall between a pair's count and its sums, so a batch may have the one and the next the other."""
    out = []
    for index in range(grid.batches):
        pairs = {}
        for own, counts in rises[QUALITY_PAIRS].items():
            sums = [rises[QUALITY_SUM].get((*own, moment)) for moment in MOMENTS]
            moments = [0.0 if rise is None else rise[index] for rise in sums]
            if counts[index] or any(moments):
                pairs[int(own[0]), float(own[1])] = PairSums(counts[index], *moments)
        start = grid.start + index * grid.step
        out.append(Batch(start, start + grid.step, pairs))
    return out


def _by_bound(rises: Mapping[Own, Sequence[float]]) -> dict[float, float]:
    """Cumulative counts by upper bound, over all models and results."""
    out: dict[float, float] = {}
    for (_, _, bound), values in rises.items():
        out[float(bound)] = out.get(float(bound), 0.0) + sum(values)
    return out
