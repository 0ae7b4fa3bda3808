"""How many pods the work that waits needs. Pure; used by the operator's loop and by `diffcache simulate-loops`.

The measure is the backlog in seconds: steps left to run, queued and running, times the measured seconds a step, over
the pods. A hit leaves less to run, so a warm cache needs fewer pods at the same load. The rule is the horizontal pod
autoscaler's (kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale): wanted = ceil(current * measured /
target), a tolerance, a limit on each rise, and the maximum over a window before a fall.

The backlog alone cannot say how far to come down: it is about 0 at *any* sufficient count, so a loop that follows it
falls to one pod, drowns, rises, and so on. Hence a fall also leaves room for what the device is busy with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from diffcache_core.resource.spec import AutoscalingSpec

TOLERANCE = 0.1
"""Relative distance from the target within which nothing changes, as in the horizontal pod autoscaler."""

RISE_FACTOR, RISE_PODS = 2, 4
"""At once at most twice as many as are ready, or so many more, whichever is larger."""

ROOM = 0.5
"""Pods beyond the busy share b, in sqrt(b): square-root staffing (Halfin & Whitt, Operations Research 29, 1981). What
is random in the load grows with its root, so one pod is filled to 61%, two to 70%, ten to 85%. Lower saves pods and
lets the queue build up at times, which brings them back."""

MAX_STEPS, MAX_SECONDS_PER_STEP, MAX_BUSY = 1e9, 3600.0, 2.0
"""Beyond these a figure is no measurement: far above the queues of all pods; seconds; busy share a pod."""


@dataclass(frozen=True)
class ScalingBounds:
    """From `spec.autoscaling`. min_replicas at least 1 and at most max_replicas."""

    min_replicas: int
    max_replicas: int
    target_backlog_seconds: float  # above 0; five requests or more: below, every cluster of arrivals asks for a pod
    stabilization_seconds: float  # at least 0


def bounds_of(spec: AutoscalingSpec) -> ScalingBounds:
    """What the spec asks for. Without maxReplicas, which mode Operator needs, nothing scales."""
    most = spec.min_replicas if spec.max_replicas is None else spec.max_replicas
    return ScalingBounds(
        spec.min_replicas, most, float(spec.target_backlog_seconds), float(spec.scale_down_stabilization_seconds)
    )


@dataclass(frozen=True)
class Load:
    """What the ready pods said."""

    at: float  # seconds since the epoch
    ready: int  # pods that are ready
    pending_steps: float  # queued and running, really left to run, over all pods
    seconds_per_step: float | None  # device seconds for one step of one request; None: no step has run yet
    busy: float | None  # device seconds per second, over all pods; None: not known


class Look(NamedTuple):
    """What one look at the load showed, for the window of those that follow."""

    at: float
    wanted: int  # pods for the backlog, before bounds and limits
    busy: float | None


@dataclass(frozen=True)
class Scaling:
    """`wanted`: the looks that the window still needs, oldest first; to be passed in next time."""

    replicas: int
    reason: str  # one CamelCase word: Up | Down | AtRest | Stabilizing | Starting | OutOfBounds | NoData | ...
    message: str
    wanted: tuple[Look, ...]


def scale(current: int, load: Load | None, wanted: Sequence[Look], bounds: ScalingBounds) -> Scaling:
    """The number of pods from now on.

    Args:
        current: `spec.serving.replicas`: pods asked for, ready or not.
        load: None when no pod answered.
        wanted: what the last call returned; empty at first, which keeps the count from falling for one whole window.
        bounds: from the spec.

    Whatever cannot be believed leaves the count as it is, inside the bounds, and says so.
    """
    history = tuple(wanted)
    inside = _clamp(current, bounds)
    if inside != current:
        text = f"{current} is outside {bounds.min_replicas} to {bounds.max_replicas}"
        return Scaling(inside, "OutOfBounds", text, history)
    refusal = _refuse(load, current)
    if load is None or refusal is not None:
        reason, text = refusal or ("NoData", "")
        return Scaling(current, reason, f"stays at {current}: {text}", history)
    if history and load.at < history[-1].at:
        # The window starts again, as if `current` had been needed until now.
        text = f"stays at {current}: the clock went back by {history[-1].at - load.at:.0f} s"
        return Scaling(current, "ClockJump", text, (Look(load.at, current, load.busy),))
    return _decide(current, load, history, bounds)


def _decide(current: int, load: Load, history: tuple[Look, ...], bounds: ScalingBounds) -> Scaling:
    backlog = _backlog(load, current)
    for_backlog = _pods_for_backlog(backlog, current, bounds)
    start = load.at - bounds.stabilization_seconds
    history = _since(start, (*history, Look(load.at, for_backlog, load.busy)))
    measured = f"backlog {backlog:.1f} s a pod (target {bounds.target_backlog_seconds:g} s)"
    if for_backlog > current:
        return _rise(current, for_backlog, load, history, bounds, measured)
    if load.busy is None:
        return Scaling(
            current, "AtRest", f"stays at {current}: {measured}; how busy the pods are is not known", history
        )
    busy = _busier_half(start, load.at, history)
    measured += f", busy {busy:.2f} of {load.ready}"
    for_busy = pods_for_busy(busy)
    if _clamp(max(for_backlog, for_busy), bounds) >= current:
        return Scaling(current, "AtRest", f"stays at {current}: {measured}", history)
    lowest = _clamp(max(for_busy, *(look.wanted for look in history)), bounds)
    if history[0].at > start or lowest >= current:
        text = f"stays at {current}: {measured}; fewer have not sufficed for {bounds.stabilization_seconds:g} s yet"
        return Scaling(current, "Stabilizing", text, history)
    return Scaling(lowest, "Down", f"from {current} to {lowest}: {measured}", history)


def _rise(
    current: int,
    needed: int,
    load: Load,
    history: tuple[Look, ...],
    bounds: ScalingBounds,
    measured: str,
) -> Scaling:
    """Counted from the pods that are ready: those that start will take their share, and have not been felt yet."""
    ready = min(load.ready, current)
    limit = max(RISE_FACTOR * ready, ready + RISE_PODS, current)
    replicas = _clamp(min(needed, limit), bounds)
    if replicas > current:
        return Scaling(replicas, "Up", f"from {current} to {replicas}: {measured}", history)
    if current == bounds.max_replicas:
        return Scaling(current, "AtMaximum", f"stays at {current}, the maximum: {measured}", history)
    text = f"stays at {current}: {measured}; {current - ready} pods are not ready yet"
    return Scaling(current, "Starting", text, history)


def pods_for_busy(busy: float) -> int:
    """Pods that leave room for `busy` device seconds per second: ceil(b + ROOM sqrt(b)), at least 1."""
    return max(1, _ceil(busy + ROOM * math.sqrt(busy)))


def _backlog(load: Load, current: int) -> float:
    """Seconds of work a pod. Pods that start are counted: the work that waits is theirs, too."""
    return load.pending_steps * (load.seconds_per_step or 0.0) / current


def _pods_for_backlog(backlog: float, current: int, bounds: ScalingBounds) -> int:
    ratio = backlog / bounds.target_backlog_seconds
    return current if abs(ratio - 1) <= TOLERANCE else max(1, _ceil(current * ratio))


def _refuse(load: Load | None, current: int) -> tuple[str, str] | None:
    """Why this load tells nothing: reason and words; None when it can be believed."""
    if load is None:
        return "NoData", "no pod answers"
    if load.ready < 1:
        return "NoData", "no pod is ready"
    limits = (
        ("time", load.at, math.inf),
        ("pending steps", load.pending_steps, MAX_STEPS),
        ("seconds per step", load.seconds_per_step, MAX_SECONDS_PER_STEP),
        ("busy share", load.busy, MAX_BUSY * max(load.ready, current)),
    )
    for name, value, most in limits:
        if value is not None and not (math.isfinite(value) and 0 <= value <= most):
            return "BadData", f"{name} {value} cannot be"
    if load.seconds_per_step is None and load.pending_steps > 0:
        return "NoData", "no step has been measured yet"
    return None


def _since(start: float, history: tuple[Look, ...]) -> tuple[Look, ...]:
    """The looks since `start` and the last one before: it holds until the next, whatever lies between."""
    older = [i for i, look in enumerate(history) if look.at <= start]
    return history[older[-1] :] if older else history


def _busier_half(start: float, end: float, history: tuple[Look, ...]) -> float:
    """The larger mean busy share of the two halves of the window: a mean, for one look is mostly chance; of halves, so
    that a load which has just come is not averaged away."""
    middle = (start + end) / 2
    halves: tuple[list[float], list[float]] = ([], [])
    for look in history:
        if look.busy is not None and look.at >= start:
            halves[look.at > middle].append(look.busy)
    return max(sum(half) / len(half) for half in halves if half)


def _clamp(count: int, bounds: ScalingBounds) -> int:
    return max(1, bounds.min_replicas, min(count, bounds.max_replicas))


def _ceil(value: float) -> int:
    """ceil, with sums of floats such as 3.0000000000000004 taken for what they mean."""
    return math.ceil(value - 1e-9)
