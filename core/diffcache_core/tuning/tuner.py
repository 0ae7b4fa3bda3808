"""The tuner's decision: levels as loose as their proven quality allows, and capacity up to the knee. Pure.

docs/tuning.md explains the theory and the settings. Each decision moves one thing, so that its effect can be seen:

1. levels that are proven bad are raised at once;
2. else, after the cool-down, levels move by at most one bin. They are lowered where the bin below is proven good. With
   a latency objective they are only lowered while it is missed, and raised while it is met with a margin;
3. else the capacity moves towards the knee, at most by a factor of two.

If the measurements cannot be believed, nothing moves, and the decision says why.
"""

from __future__ import annotations

import math
from dataclasses import replace

from diffcache_core.quantities import quantity_of
from diffcache_core.tuning.evidence import FEW, Evidence, bin_index
from diffcache_core.tuning.knee import find_knee
from diffcache_core.tuning.level_moves import Table, eased, loosened, withdrawn
from diffcache_core.tuning.values import Batch, Decision, Goals, PairSums, Tuning, Window
from diffcache_core.tuning.window_checks import Trouble, find_trouble

__all__ = ["Batch", "Decision", "Goals", "PairSums", "Tuning", "Window", "evidence_start", "tune"]

COOL_DOWN = 300.0
"""Seconds after a change in which the tuner only reacts to proven harm: p95 and steps saved are averages over
minutes."""
EVIDENCE_SECONDS = 7 * 86400.0
"""Length in seconds of a span; comparisons of the current and the previous span count. A longer span can prove smaller
differences, but needs more data from Prometheus, which keeps 15 days by default."""
EASE_BELOW = 0.7
"""Share of the latency objective below which levels become tighter; nearer to 1 they would oscillate."""
MIN_REQUESTS = 300
"""Requests that the window needs before capacity and latency are tuned."""
SHADOW_TOLERANCE = 0.01
"""How far the steps saved ratio of the simulated cache at the capacity in force may differ from the measured one."""
CAPACITY_STEP = 2.0
"""Factor by which one decision moves the capacity at most: at a distant capacity the mixture of requests in the cache
would differ from the measured one."""
CAPACITY_REST = 1.05
"""Factor of the capacity below which a move is not worth it."""
CHANCE = 0.2
"""The measured gain of a doubling has an error below CHANCE / sqrt(requests), which is two standard deviations as
measured on real logs by `simulate-loops`: few requests hit in one cache and miss in one of half the size. A move must
be worth that much; with a lower value the capacity varies around the knee by chance."""


def evidence_start(now: float, since: float) -> float:
    """Returns the time from which comparisons count, in seconds since the epoch.

    Args:
        now: seconds since the epoch.
        since: the time since which model, scorer and spec are unchanged, in seconds since the epoch.

    The start moves by whole spans. With a sliding start, the chance of error would only hold for each moment, instead
    of for all moments of a span together.
    """
    return max(since, (now // EVIDENCE_SECONDS - 1) * EVIDENCE_SECONDS)


def tune(current: Tuning, window: Window, goals: Goals, *, now: float, changed_at: float | None) -> Decision:
    """Decides what to change, if anything. Never raises; the same arguments give the same decision.

    Args:
        now: seconds since the epoch.
        changed_at: when the last change took effect, in seconds since the epoch; None if nothing was ever changed.
    """
    trouble = find_trouble(current, window, goals, now=now, changed_at=changed_at)
    if trouble is not None:
        return _frozen(current, trouble, {})
    evidence = Evidence(window.batches, [level.skip_percent for level in current.levels], goals.quality_target)
    inputs = _inputs(window, evidence, now)
    lowest = goals.min_similarity

    table = withdrawn(current.levels, evidence, lowest)
    if table != current.levels:
        is_bad = withdrawn(current.levels, evidence, -1.0) != current.levels
        why = "comparisons show that quality there is below the target" if is_bad else "minSimilarity allows no less"
        return _moved(current, table, "Tightened", why, evidence, inputs)
    if changed_at is not None and now - changed_at < COOL_DOWN:
        left = COOL_DOWN - (now - changed_at)
        return _frozen(current, Trouble("CoolingDown", f"the last change is too fresh: {left:.0f} s to go"), inputs)

    table, direction = _levels(current, window, goals, evidence)
    if table != current.levels:
        return _moved(current, table, direction[0], direction[1], evidence, inputs)

    capacity = _capacity(current, window, goals)
    if isinstance(capacity, Trouble):
        return _frozen(current, capacity, inputs)
    if capacity != current.capacity_bytes:
        grown = capacity > current.capacity_bytes
        change = f"capacity {quantity_of(current.capacity_bytes)} -> {quantity_of(capacity)}"
        within = goals.capacity_min <= current.capacity_bytes <= goals.capacity_max
        message = f"{change}: {'a doubling is worth it up to about there' if within else 'it was out of its bounds'}"
        return Decision(
            replace(current, capacity_bytes=capacity), "Grown" if grown else "Shrunk", message, inputs=inputs
        )
    if current.levels and evidence.pairs < FEW:
        few = f"only {evidence.pairs:.0f} comparisons so far: do quality.shadowPercent and the scorer allow any?"
        return _frozen(current, Trouble("TooFewSamples", few), inputs)
    return Decision(current, "AtRest", "levels and capacity are where the measurements put them", inputs=inputs)


def _levels(current: Tuning, window: Window, goals: Goals, evidence: Evidence) -> tuple[Table, tuple[str, str]]:
    """Returns the next table of levels, and its reason and message."""
    loose = loosened(current.levels, evidence, goals.min_similarity)
    proof = "comparisons prove that the quality target is kept there"
    if goals.p95_seconds is None:
        return loose, ("Loosened", proof)
    if window.p95_seconds is None or window.requests < MIN_REQUESTS:
        return current.levels, ("", "")
    if window.p95_seconds > goals.p95_seconds:
        return loose, ("Loosened", f"p95 is {window.p95_seconds:.3g} s, and {proof}")
    if window.p95_seconds < EASE_BELOW * goals.p95_seconds:
        why = f"p95 is {window.p95_seconds:.3g} s, far below the objective: quality may have the difference"
        return eased(current.levels, evidence), ("Tightened", why)
    return current.levels, ("", "")


def _capacity(current: Tuning, window: Window, goals: Goals) -> int | Trouble:
    """Returns the next capacity in bytes, or the trouble that keeps it as it is."""
    capacity = current.capacity_bytes
    if goals.capacity_min == goals.capacity_max:
        return capacity
    bounded = max(goals.capacity_min, min(goals.capacity_max, capacity))
    if bounded != capacity:
        return bounded
    shadow, measured = window.shadow_ssr.get(1.0), window.measured_ssr
    if shadow is None or measured is None:
        return Trouble("NoData", "nothing is known of caches of other capacities yet")
    if window.requests < MIN_REQUESTS:
        return Trouble(
            "TooFewSamples", f"{window.requests:.0f} of {MIN_REQUESTS} requests since the last change was followed"
        )
    if abs(shadow - measured) > SHADOW_TOLERANCE:
        off = f"the simulated cache of this capacity saves {shadow:.3f} of the steps, the real one {measured:.3f}"
        return Trouble("ShadowCacheOff", f"{off}: capacity stays until they agree")
    found = find_knee(window.shadow_ssr, goals.min_gain)
    if found.worth < CHANCE / math.sqrt(window.requests):
        return capacity
    multiple = max(1 / CAPACITY_STEP, min(CAPACITY_STEP, found.multiple))
    wanted = max(goals.capacity_min, min(goals.capacity_max, _round_bytes(capacity * multiple)))
    return wanted if max(wanted / capacity, capacity / wanted) > CAPACITY_REST else capacity


def _round_bytes(wanted: float) -> int:
    """Rounds to seven binary digits, so that the number is easy to read: whole Mi from 64Mi on."""
    unit = int(2 ** max(0, math.floor(math.log2(wanted)) - 6))
    return round(wanted / unit) * unit


def _moved(
    current: Tuning, table: Table, reason: str, why: str, evidence: Evidence, inputs: dict[str, str]
) -> Decision:
    moves = [(old, new) for old, new in zip(current.levels, table, strict=True) if old != new]
    changes = ", ".join(f"{old.skip_percent}% from {old.similarity:g} to {new.similarity:g}" for old, new in moves)
    for old, new in moves:
        at = min(old.similarity, new.similarity)
        inputs |= _bin_inputs(old.skip_percent, at, evidence)
    return Decision(replace(current, levels=table), reason, f"levels {changes}: {why}", inputs=inputs)


def _frozen(current: Tuning, trouble: Trouble, inputs: dict[str, str]) -> Decision:
    return Decision(current, trouble.reason, trouble.message, frozen=True, inputs=inputs)


def _bin_inputs(skip: int, similarity: float, evidence: Evidence) -> dict[str, str]:
    index = bin_index(similarity)
    ratio = evidence.ratio(skip, index)
    known = "no pairs" if ratio is None else f"ratio {ratio:.3f} of {evidence.count(skip, index):.0f} pairs"
    return {f"{skip}%@{similarity:g}": known}


def _inputs(window: Window, evidence: Evidence, now: float) -> dict[str, str]:
    figures = {"requests": f"{window.requests:.0f}", "pairs": f"{evidence.pairs:.0f}"}
    if window.newest is not None:
        figures["age"] = f"{now - window.newest:.0f}s"
    if window.p95_seconds is not None:
        figures["p95Seconds"] = f"{window.p95_seconds:.3g}"
    if window.measured_ssr is not None:
        figures["stepsSavedRatio"] = f"{window.measured_ssr:.3f}"
    if window.shadow_due:
        figures["shadowsDropped"] = f"{window.shadow_dropped:.0f}/{window.shadow_due:.0f}"
    for multiple, ratio in sorted(window.shadow_ssr.items()):
        figures[f"shadow{multiple:g}x"] = f"{ratio:.3f}"
    return figures
