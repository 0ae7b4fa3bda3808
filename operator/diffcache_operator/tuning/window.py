"""Turns raw counters of Prometheus into the tuner's window. Pure.

Counters are read without `rate` or `increase`: those extrapolate, and the tuner's bounds need exact counts. A counter
restarts at 0 with its process; `diffcache_start_time_seconds` or a fall of the value shows it. A series is identified
by its pod and its own labels, not by labels that a scrape adds: a pod that returns with another address continues its
series.
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
"""For each metric that the tuner reads, the labels that the pods themselves set."""
COMPARISONS = (START_TIME, QUALITY_PAIRS, QUALITY_SUM)
FIGURES = (START_TIME, STEPS, STEPS_SKIPPED, DURATION_BUCKETS, SHADOW_CACHE_STEPS, SHADOW_CACHE_SKIPPED, SHADOW_RUNS)

SHORTEST_STEP = 30.0
"""Seconds between two points at least: a usual time between two scrapes. Figures start this long after the pods began
to follow the tuning, so that the first point was scraped after that, too."""
MAX_BATCHES = 144
"""Batches of a grid at most. More batches lose less of what a pod counted between the last point and its end, but cost
more."""
MAX_COMPARISONS = 400
"""Pairs of a level and a bin at most: 20 levels and 20 bins. More must come from another program, and each costs memory
in every batch."""
MAX_JOBS = 100
"""Scrape jobs at most whose series of one pod are told apart."""
MAX_TROUBLES = 10
"""Problems kept of one grid at most: only one is reported, and a foreign server may cause any number."""
LONGEST = 24 * 3600.0
"""Seconds that figures reach back at most: a day covers the daily rhythm. Comparisons reach further, see
`tuning.evidence_start`."""


@dataclass(frozen=True)
class Grid:
    """Equally spaced points in time."""

    start: float  # seconds since the epoch
    step: float
    batches: int

    @classmethod
    def anchored(cls, now: float, since: float) -> Grid | None:
        """Returns a grid that begins at `since`; None until there is a whole batch.

        Its batches stay the same from look to look, except that the step doubles now and then: the tuner's bounds only
        hold for groups that are fixed in advance.
        """
        step = SHORTEST_STEP
        while now - since > MAX_BATCHES * step:
            step *= 2
        batches = int((now - since) // step)
        return cls(since, step, batches) if batches > 0 else None

    @classmethod
    def until(cls, now: float, since: float) -> Grid | None:
        """Returns a grid that ends `now`; None until there is a whole batch."""
        step = max(SHORTEST_STEP, math.ceil((now - since) / MAX_BATCHES))
        batches = int((now - since) // step)
        return cls(now - batches * step, step, batches) if batches > 0 else None

    @property
    def end(self) -> float:
        return self.start + self.step * self.batches

    def point(self, at: float) -> int | None:
        """Returns the index of the point at this time; None if no point is there."""
        index = round((at - self.start) / self.step) if math.isfinite(at) else -1
        return index if 0 <= index <= self.batches and abs(self.start + index * self.step - at) < 0.5 else None


@dataclass(frozen=True)
class Span:
    """From when on comparisons and figures count, in seconds since the epoch."""

    comparisons: float
    figures: float  # when all ready pods began to follow the tuning in force

    def grids(self, now: float) -> tuple[Grid, Grid] | None:
        """Returns the grids of comparisons and of figures; None while there is nothing to count."""
        comparisons = Grid.anchored(now, self.comparisons)
        figures = Grid.until(now, max(self.figures + SHORTEST_STEP, now - LONGEST))
        return None if comparisons is None or figures is None else (comparisons, figures)


@dataclass(frozen=True)
class Reading:
    """A window. `bad`: problems of its data; if there are any, nothing may be decided from it."""

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
"""For each metric and its own labels: the increase in each batch, summed over all pods."""


@dataclass
class Newest:
    """The time of the latest sample of these pods, in seconds since the epoch."""

    pods: frozenset[str]
    at: float | None = None

    def add(self, one: Series) -> None:
        """Takes one series of one pod. Its values are the times of samples."""
        for _, value in one.values:
            if one.labels.get("pod", "") in self.pods and math.isfinite(value):
                self.at = value if self.at is None else max(self.at, value)


@dataclass
class Counters:
    """What these pods had counted at the points of a grid. Series of other pods are ignored.

    A counter takes ten bytes per point: a large cache has millions of points.
    """

    grid: Grid
    pods: frozenset[str]
    bad: set[str] = field(default_factory=set)
    _counters: dict[tuple[str, str, Own], _Counter] = field(default_factory=dict)
    _jobs: list[str] = field(default_factory=list)

    def add(self, one: Series) -> None:
        """Takes one series. Values that a counter cannot have are left out and reported in `bad`."""
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
        """Returns the number of a scrape job; None if there are too many."""
        if name not in self._jobs:
            if len(self._jobs) == MAX_JOBS:
                return None
            self._jobs.append(name)
        return self._jobs.index(name)

    def _tell(self, trouble: str) -> None:
        if len(self.bad) < MAX_TROUBLES:
            self.bad.add(trouble)

    def rises(self) -> Rises:
        """Returns the increases of every metric, summed over pods."""
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
    """One value for each point, and the number of the job that scraped it."""

    def __init__(self, points: int) -> None:
        self._values, self.jobs = array("d", [math.nan]) * points, bytearray(points)

    def set(self, index: int, value: float, job: int) -> bool:
        """Stores a value. Returns False, without storing it, if another job has given this point."""
        before = self._values[index]
        if not math.isnan(before) and self.jobs[index] != job:
            return False
        self._values[index], self.jobs[index] = value if math.isnan(before) else min(before, value), job
        return True

    def points(self) -> _Points:
        return [None if math.isnan(value) else value for value in self._values]


def _rise(points: _Points, starts: _Points, grid: Grid) -> list[float]:
    """Returns the increase of one counter in each batch. After a gap, the whole increase counts for the batch in which
    the counter appears again."""
    out = [0.0] * grid.batches
    last: float | None = None
    began: float | None = None  # start time of the process that reported `last`
    for index, value in enumerate(points):
        start = starts[index]
        if value is None or start is None:
            # A series that appears while its pod is already watched begins at 0.
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
    """Returns whether the label values are possible: skip, similarity, multiple and bucket are numbers, and a moment is
    one of five."""
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
    """Returns the steps saved ratio for each multiple of the capacity in force, if that simulated cache had any
    requests."""
    asked = {own: sum(values) for own, values in rises[SHADOW_CACHE_STEPS].items()}
    saved = {own: sum(values) for own, values in rises[SHADOW_CACHE_SKIPPED].items()}
    return {float(own[0]): saved.get(own, 0.0) / steps for own, steps in asked.items() if steps > 0}


def _batches(rises: Rises, grid: Grid) -> list[Batch]:
    """Makes the batches. A scrape may fall between a pair's count and its sums; then one batch has the count and the
    next one the sums."""
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
    """Returns cumulative counts for each upper bound in seconds, summed over all models and results."""
    out: dict[float, float] = {}
    for (_, _, bound), values in rises.items():
        out[float(bound)] = out.get(float(bound), 0.0) + sum(values)
    return out
