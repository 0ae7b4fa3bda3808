"""Computes how many pods the waiting work needs. Pure. The operator's loop and `diffcache simulate-loops` use it.

The measure is the backlog in seconds per pod: steps left to run (queued and running) times the measured seconds per
step, divided by the pods. A hit leaves fewer steps, so a warm cache needs fewer pods at the same load. The rule is that
of the horizontal pod autoscaler (kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale): wanted =
ceil(current * measured / target), with a tolerance, a limit on each rise, and the maximum over a window before a fall.

The backlog alone cannot say how far to scale down: it is about 0 at *any* sufficient number. A loop that only follows
it would fall to one pod, be overloaded, rise again, and so on. So a fall also keeps enough pods for the time that the
devices are busy.
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
"""Limit of one rise: twice the ready pods, or four more than them, whichever is larger."""

ROOM = 0.5
"""Pods in addition to the busy share b, in units of sqrt(b): square-root staffing (Halfin & Whitt, Operations Research
29, 1981). Random variation of the load grows with its root, so one pod is used at most to 61%, two to 70%, ten to 85%.
A lower value saves pods, but queues then grow at times and add the pods again."""

MAX_STEPS, MAX_SECONDS_PER_STEP, MAX_BUSY = 1e9, 3600.0, 2.0
"""Limits beyond which a figure is not believed: steps (far above the queues of all pods), seconds, busy share per
pod."""


@dataclass(frozen=True)
class ScalingBounds:
    """The settings from `spec.autoscaling`. min_replicas is at least 1 and at most max_replicas."""

    min_replicas: int
    max_replicas: int
    target_backlog_seconds: float  # above 0; below the time of five requests, each burst asks for a pod
    stabilization_seconds: float  # at least 0


def bounds_of(spec: AutoscalingSpec) -> ScalingBounds:
    """Returns the bounds that the spec asks for. Without maxReplicas, which mode Operator requires, nothing scales."""
    most = spec.min_replicas if spec.max_replicas is None else spec.max_replicas
    return ScalingBounds(
        spec.min_replicas, most, float(spec.target_backlog_seconds), float(spec.scale_down_stabilization_seconds)
    )


@dataclass(frozen=True)
class Load:
    """What the ready pods reported."""

    at: float  # seconds since the epoch
    ready: int  # pods that are ready
    pending_steps: float  # steps left to run, queued and running, over all pods
    seconds_per_step: float | None  # device seconds for one step of one request; None: no step has run yet
    busy: float | None  # device seconds per second, over all pods; None: not known


class Look(NamedTuple):
    """The result of one look at the load, kept for the stabilization window."""

    at: float
    wanted: int  # pods for the backlog, before bounds and limits
    busy: float | None


@dataclass(frozen=True)
class Scaling:
    """A decision. `wanted`: the looks that the window still needs, oldest first; the caller passes them to the next
    call."""

    replicas: int
    reason: str  # one CamelCase word: Up | Down | AtRest | Stabilizing | Starting | OutOfBounds | NoData | ...
    message: str
    wanted: tuple[Look, ...]


def scale(current: int, load: Load | None, wanted: Sequence[Look], bounds: ScalingBounds) -> Scaling:
    """Decides the number of pods from now on.

    Args:
        current: `spec.serving.replicas`: the pods asked for, ready or not.
        load: None if no pod answered.
        wanted: the value that the last call returned; empty at first. Then the number cannot fall for one whole window.
        bounds: from the spec.

    If figures cannot be believed, the number stays, inside the bounds, and the reason says so.
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
    """Decides on a rise. Its limit counts from the ready pods: starting pods do not yet reduce the backlog."""
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
    """Returns the pods needed for `busy` device seconds per second: ceil(b + ROOM sqrt(b)), at least 1."""
    return max(1, _ceil(busy + ROOM * math.sqrt(busy)))


def _backlog(load: Load, current: int) -> float:
    """Returns the seconds of work per pod. Starting pods count, because they will do a part of it."""
    return load.pending_steps * (load.seconds_per_step or 0.0) / current


def _pods_for_backlog(backlog: float, current: int, bounds: ScalingBounds) -> int:
    ratio = backlog / bounds.target_backlog_seconds
    return current if abs(ratio - 1) <= TOLERANCE else max(1, _ceil(current * ratio))


def _refuse(load: Load | None, current: int) -> tuple[str, str] | None:
    """Returns reason and text if this load cannot be used; None if it can."""
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
    """Returns the looks since `start`, and the last one before, whose result holds until the next look."""
    older = [i for i, look in enumerate(history) if look.at <= start]
    return history[older[-1] :] if older else history


def _busier_half(start: float, end: float, history: tuple[Look, ...]) -> float:
    """Returns the larger of the mean busy shares of the two halves of the window. A mean is used because a single look
    is mostly chance; halves are used so that a new load is not averaged away."""
    middle = (start + end) / 2
    halves: tuple[list[float], list[float]] = ([], [])
    for look in history:
        if look.busy is not None and look.at >= start:
            halves[look.at > middle].append(look.busy)
    return max(sum(half) / len(half) for half in halves if half)


def _clamp(count: int, bounds: ScalingBounds) -> int:
    return max(1, bounds.min_replicas, min(count, bounds.max_replicas))


def _ceil(value: float) -> int:
    """Returns ceil(value), but ignores rounding errors such as 3.0000000000000004."""
    return math.ceil(value - 1e-9)
