"""Reads what pods export about their work, and adds it up to a load. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffcache_core.names import DEVICE_SECONDS, PENDING_STEPS, STEP_SECONDS
from diffcache_core.scaling import Load
from diffcache_operator.exposition_lines import read_samples

NAMES = (PENDING_STEPS, f"{STEP_SECONDS}_sum", f"{STEP_SECONDS}_count", DEVICE_SECONDS)
"""The metrics that `parse` reads."""


@dataclass(frozen=True)
class Work:
    """The work of one pod. All values except the pending steps count from the start of its process."""

    pending_steps: float
    step_seconds: float  # sum, over calls, of the seconds a step of one request took
    calls: float
    device_seconds: float | None  # in which the device ran calls; None: an old image does not count them


@dataclass(frozen=True)
class Snapshot:
    """What the ready pods reported at one time. A load is made of several snapshots."""

    at: float  # seconds of a monotonic clock
    pods: Mapping[str, Work]  # by uid


def parse(text: str) -> Work:
    """Parses what one pod exports. Raises ValueError if a pod of ours would not export it."""
    samples = {sample.name: sample.value for sample in read_samples(text, NAMES) if not sample.labels}
    if PENDING_STEPS not in samples:
        raise ValueError(f"no {PENDING_STEPS}")
    work = Work(
        samples[PENDING_STEPS],
        samples.get(f"{STEP_SECONDS}_sum", 0.0),
        samples.get(f"{STEP_SECONDS}_count", 0.0),
        samples.get(DEVICE_SECONDS),
    )
    numbers = (work.pending_steps, work.step_seconds, work.calls, work.device_seconds or 0.0)
    if not all(math.isfinite(value) and value >= 0 for value in numbers):
        raise ValueError("a figure is no number, or negative")
    return work


def load_of(seen: Sequence[Snapshot], ready: int) -> Load | None:
    """Makes a load of the last snapshots, oldest first. Returns None if no pod answered in the last one.

    Pods that did not answer count as having as much work as the others on average.
    """
    if not seen or not seen[-1].pods:
        return None
    last = seen[-1]
    pending = sum(work.pending_steps for work in last.pods.values())
    return Load(
        at=last.at,
        ready=ready,
        pending_steps=pending * ready / len(last.pods),
        seconds_per_step=_seconds_per_step(seen),
        busy=_busy(seen, ready),
    )


def _seconds_per_step(seen: Sequence[Snapshot]) -> float | None:
    """Returns the mean over the calls within the snapshots; if none ran, over all calls since the pods started; else
    None."""
    seconds = calls = 0.0
    for uid, work in seen[-1].pods.items():
        _, before = _first(seen, uid)
        seconds += _rise(before.step_seconds, work.step_seconds, restarted=work.calls < before.calls)
        calls += _rise(before.calls, work.calls, restarted=work.calls < before.calls)
    if calls <= 0:
        seconds = sum(work.step_seconds for work in seen[-1].pods.values())
        calls = sum(work.calls for work in seen[-1].pods.values())
    return seconds / calls if calls > 0 else None


def _busy(seen: Sequence[Snapshot], ready: int) -> float | None:
    """Returns device seconds per second, summed over all pods; None before any pod has been seen twice."""
    shares = []
    for uid, work in seen[-1].pods.items():
        at, before = _first(seen, uid)
        if work.device_seconds is not None and before.device_seconds is not None and at < seen[-1].at:
            restarted = work.device_seconds < before.device_seconds
            rise = _rise(before.device_seconds, work.device_seconds, restarted=restarted)
            shares.append(rise / (seen[-1].at - at))
    return sum(shares) * ready / len(shares) if shares else None


def _first(seen: Sequence[Snapshot], uid: str) -> tuple[float, Work]:
    return next((one.at, one.pods[uid]) for one in seen if uid in one.pods)


def _rise(before: float, after: float, *, restarted: bool) -> float:
    return after if restarted else max(0.0, after - before)
