"""Checks whether a window of measurements can be believed. Pure."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from diffcache_core.names import SHADOW_MULTIPLES
from diffcache_core.tuning.evidence import EDGES, bin_index
from diffcache_core.tuning.values import Batch, Goals, PairSums, Tuning, Window

STALE_SECONDS = 300.0
"""Age of the newest sample beyond which nothing is decided: some twenty missed scrapes."""
CLOCK_SLACK = 60.0
"""Seconds by which a sample may be newer than now: the clocks of two machines."""
MAX_DROPPED = 0.1
"""Share of comparisons that may be dropped. Dropped comparisons are those of busy hours, so the rest is biased."""
FEW_DROPPED = 2
"""This many dropped comparisons are always accepted as chance."""
TORN = 2.0
"""Pairs by which a sum may be ahead of its count, because a scrape may happen between the updates of two counters."""
MOST = 1e15
"""No counter of ours increases by more."""


@dataclass(frozen=True)
class Trouble:
    reason: str
    message: str


def find_trouble(
    current: Tuning, window: Window, goals: Goals, *, now: float, changed_at: float | None
) -> Trouble | None:
    """Returns why nothing may be decided; None if the window can be used."""
    if window.newest is None:
        return Trouble("NoData", "no measurement yet: does Prometheus scrape the pods?")
    if bad := _bad_figure(current, window, goals, now, changed_at):
        return Trouble("BadData", f"{bad} cannot be; nothing is decided while it is among the measurements")
    latest = max([window.newest, *(batch.end for batch in window.batches)])
    if latest > now + CLOCK_SLACK or (changed_at is not None and changed_at > now + CLOCK_SLACK):
        return Trouble("ClockJump", "measurements or the last decision lie in the future: a clock is wrong")
    if now - window.newest > STALE_SECONDS:
        return Trouble("StaleData", f"the newest measurement is {now - window.newest:.0f} s old")
    if window.shadow_dropped > max(MAX_DROPPED * window.shadow_due, FEW_DROPPED):
        dropped = f"{window.shadow_dropped:.0f} of {window.shadow_due:.0f} comparisons were dropped"
        return Trouble("ShadowsDropped", f"{dropped}: the pods have no idle time for them")
    return None


def _bad_figure(current: Tuning, window: Window, goals: Goals, now: float, changed_at: float | None) -> str:
    """Returns the first impossible figure by name; empty if all are possible."""
    ratios = {f"shadow_ssr[{multiple}]": ratio for multiple, ratio in window.shadow_ssr.items()}
    if window.measured_ssr is not None:
        ratios["measured_ssr"] = window.measured_ssr
    amounts = {
        "steps": window.steps,
        "steps_skipped": window.steps_skipped,
        "requests": window.requests,
        "shadow_due": window.shadow_due,
        "shadow_dropped": window.shadow_dropped,
        "p95_seconds": window.p95_seconds or 0.0,
        "newest": window.newest or 0.0,
        "now": now,
        "changed_at": changed_at or 0.0,
        "capacity_bytes": current.capacity_bytes,
    }
    checks = itertools.chain(
        (f"{name} = {value}" for name, value in ratios.items() if not 0 <= value <= 1),
        (f"{name} = {value}" for name, value in amounts.items() if not 0 <= value <= MOST),
        (f"shadow_ssr[{multiple}]" for multiple in window.shadow_ssr if multiple not in SHADOW_MULTIPLES),
        _contradictions(window),
        _bad_goals(current, goals),
        _bad_batches(window),
    )
    return next(checks, "")


def _contradictions(window: Window) -> itertools.chain[str]:
    return itertools.chain(
        ["more steps skipped than asked for"] if window.steps_skipped > window.steps else [],
        ["more comparisons dropped than due"] if window.shadow_dropped > window.shadow_due else [],
    )


def _bad_goals(current: Tuning, goals: Goals) -> list[str]:
    levels = current.levels
    rising = all(
        low.skip_percent < high.skip_percent and low.similarity <= high.similarity
        for low, high in itertools.pairwise(levels)
    )
    checks = {
        f"a quality target of {goals.quality_target}": 0 < goals.quality_target <= 1,
        f"a minimum similarity of {goals.min_similarity}": -1 <= goals.min_similarity <= 1,
        f"a minimum gain of {goals.min_gain}": 0 <= goals.min_gain <= 1,
        f"an objective of {goals.p95_seconds} s": goals.p95_seconds is None or 0 < goals.p95_seconds <= MOST,
        f"a capacity from {goals.capacity_min} to {goals.capacity_max}": 0 < goals.capacity_min <= goals.capacity_max,
        f"a capacity of {current.capacity_bytes}": current.capacity_bytes > 0,
        "a level's similarity": all(-1 <= level.similarity <= 2 for level in levels),
        "a table of levels that does not rise": rising,
    }
    return [name for name, holds in checks.items() if not holds]


def _bad_batches(window: Window) -> itertools.chain[str]:
    return itertools.chain(
        (
            f"a batch from {batch.start} to {batch.end}"
            for batch in window.batches
            if not 0 <= batch.start <= batch.end <= MOST
        ),
        (
            f"a batch from {after.start} before the last one's end"
            for before, after in itertools.pairwise(window.batches)
            if after.start < before.end - 1e-3
        ),
        itertools.chain.from_iterable(_bad_pairs(batch) for batch in window.batches),
    )


def _bad_pairs(batch: Batch) -> itertools.chain[str]:
    return itertools.chain(
        (f"bin {key}" for key in batch.pairs if not _is_bin(*key)),
        (f"{sums} of bin {key}" for key, sums in batch.pairs.items() if not _plausible(sums)),
    )


def _is_bin(skip: int, lower_edge: float) -> bool:
    return 0 < skip < 100 and 0 <= lower_edge < 1 and abs(EDGES[bin_index(lower_edge)] - lower_edge) < 1e-6


def _plausible(sums: PairSums) -> bool:
    """Returns whether the sums are possible for n pairs of qualities from 0 to 1; NaN is not."""
    parts = (sums.c, sums.u, sums.cc, sums.uu, sums.cu)
    if not 0 <= sums.n <= MOST or not all(0 <= part <= sums.n + TORN for part in parts):
        return False
    return sums.cc <= sums.c + TORN and sums.uu <= sums.u + TORN and sums.cu <= math.sqrt(sums.cc * sums.uu) + TORN
