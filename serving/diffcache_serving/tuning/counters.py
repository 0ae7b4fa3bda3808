"""Reads the counters of this process and makes the tuner's window from them. Pure, except `read`.

There are no gaps and no resets: the counters are in this process and begin with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from diffcache_core.histograms import quantile
from diffcache_core.names import (
    MOMENTS,
    QUALITY_PAIRS,
    QUALITY_SUM,
    REQUEST_SECONDS,
    SHADOW_CACHE_SKIPPED,
    SHADOW_CACHE_STEPS,
    SHADOW_RUNS,
    STEPS,
    STEPS_SKIPPED,
)
from diffcache_core.tuning.tuner import Batch, PairSums, Window

_LABELS = {
    STEPS: (),
    STEPS_SKIPPED: (),
    REQUEST_SECONDS + "_bucket": ("le",),
    QUALITY_PAIRS: ("skip", "similarity"),
    QUALITY_SUM: ("skip", "similarity", "moment"),
    SHADOW_CACHE_STEPS: ("multiple",),
    SHADOW_CACHE_SKIPPED: ("multiple",),
    SHADOW_RUNS: ("outcome",),
}

Values = Mapping[tuple[str, ...], float]  # by the values of the labels in _LABELS


@dataclass(frozen=True)
class Counters:
    """All counters that the tuner needs, at one time."""

    at: float  # seconds since the epoch
    of: Mapping[str, Values]

    @classmethod
    def read(cls, registry: CollectorRegistry, now: float) -> Counters:
        """Reads the counters. Adds up series that differ only in labels that the tuner does not use."""
        of: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in _LABELS}
        for metric in registry.collect():
            for sample in metric.samples:
                if sample.name in of:
                    own = tuple(sample.labels[label] for label in _LABELS[sample.name])
                    of[sample.name][own] = of[sample.name].get(own, 0.0) + sample.value
        return cls(now, of)

    def since(self, before: Counters, name: str) -> dict[tuple[str, ...], float]:
        """Returns how much each series of a metric has risen since `before`."""
        return {own: value - before.of[name].get(own, 0.0) for own, value in self.of[name].items()}


def batch_between(before: Counters, after: Counters) -> Batch:
    """Returns the comparisons that were made between two readings."""
    sums = after.since(before, QUALITY_SUM)
    pairs = {}
    for own, n in after.since(before, QUALITY_PAIRS).items():
        if n > 0:
            c, u, cc, uu, cu = (sums.get((*own, moment), 0.0) for moment in MOMENTS)
            pairs[int(own[0]), float(own[1])] = PairSums(n, c, u, cc, uu, cu)
    return Batch(before.at, after.at, pairs)


def window_between(before: Counters, after: Counters, batches: Sequence[Batch]) -> Window:
    """Returns the measurements since `before`, when the current tuning came into force."""
    steps = sum(after.since(before, STEPS).values())
    skipped = sum(after.since(before, STEPS_SKIPPED).values())
    buckets = {float(le): rise for (le,), rise in after.since(before, REQUEST_SECONDS + "_bucket").items()}
    asked = after.since(before, SHADOW_CACHE_STEPS)
    saved = after.since(before, SHADOW_CACHE_SKIPPED)
    runs = after.since(before, SHADOW_RUNS)
    return Window(
        batches=batches,
        steps=steps,
        steps_skipped=skipped,
        requests=max(buckets.values(), default=0.0),
        p95_seconds=quantile(0.95, buckets),
        shadow_ssr={float(own[0]): saved.get(own, 0.0) / rise for own, rise in asked.items() if rise > 0},
        measured_ssr=skipped / steps if steps > 0 else None,
        shadow_due=sum(runs.values()),
        shadow_dropped=runs.get(("dropped",), 0.0),
        newest=after.at,
    )
