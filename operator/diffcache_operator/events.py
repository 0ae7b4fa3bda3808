"""Kubernetes Events about a resource: only when a condition changes, or a loop has changed something."""

from __future__ import annotations

import uuid

from diffcache_core.foreign import printable_lines, without_credentials
from diffcache_core.names import API_VERSION, KIND, MANAGER
from diffcache_core.resource.spec import DiffusionCache
from diffcache_core.resource.status import Condition, DiffusionCacheStatus
from diffcache_operator.metadata import JSON

_LOOPS = ("TuningActive", "ScalingActive")
_USUAL = {
    "Starting",
    "DownloadingModel",
    "RollingOut",
    "NoPod",
    "WaitingForPods",
    "WindowBegins",
    "TooFewSamples",
    "CoolingDown",
    "ScaledToZero",
}
"""Reasons of states that pass by themselves or are wanted: their events are no warnings."""


def turns(resource: DiffusionCache, old: DiffusionCacheStatus, new: DiffusionCacheStatus, now: str) -> list[JSON]:
    """Returns the events for the change from one status to the next. `now`: RFC 3339."""
    turned = [
        transition_event(resource, old, new, now),
        *(_loop_event(resource, old.condition(kind), new.condition(kind), now) for kind in _LOOPS),
        _tuned_event(resource, old, new, now),
        _scaled_event(resource, old, new, now),
        _corrected_event(resource, old, new, now),
    ]
    return [event for event in turned if event is not None]


def transition_event(
    resource: DiffusionCache, old: DiffusionCacheStatus, new: DiffusionCacheStatus, now: str
) -> JSON | None:
    """Returns an event about the condition Ready, for `kubectl describe` and alerts; None if reason and status are
    unchanged."""
    before, after = old.condition("Ready"), new.condition("Ready")
    assert after is not None
    if before is not None and (before.status, before.reason) == (after.status, after.reason):
        return None
    return _event(resource, after.status == "True", after.reason, after.message, now)


def _loop_event(resource: DiffusionCache, before: Condition | None, after: Condition | None, now: str) -> JSON | None:
    """Returns an event when a loop stops, stops for another reason, or continues; else None."""
    if after is None or (before is not None and (before.status, before.reason) == (after.status, after.reason)):
        return None
    goes_on = after.status == "True"
    if goes_on and (before is None or before.status == "True"):
        return None  # the loop's actions have events of their own
    return _event(resource, goes_on, after.type if goes_on else after.reason, after.message, now)


def _tuned_event(
    resource: DiffusionCache, old: DiffusionCacheStatus, new: DiffusionCacheStatus, now: str
) -> JSON | None:
    before = old.tuning.revision if old.tuning is not None else 0
    if new.tuning is None or new.tuning.revision == before or not new.tuning.history:
        return None
    last = new.tuning.history[0]
    tuning = new.condition("TuningActive")
    reason = "TuningRecommended" if tuning is not None and tuning.reason == "Recommended" else f"Tuning{last.reason}"
    return _event(resource, True, reason, last.message, now)


def _scaled_event(
    resource: DiffusionCache, old: DiffusionCacheStatus, new: DiffusionCacheStatus, now: str
) -> JSON | None:
    if new.autoscaling is None or new.autoscaling == old.autoscaling:
        return None
    return _event(resource, True, "Scaled", new.autoscaling.message, now)


def _corrected_event(
    resource: DiffusionCache, old: DiffusionCacheStatus, new: DiffusionCacheStatus, now: str
) -> JSON | None:
    if new.correction is None or new.correction == old.correction:
        return None
    return _event(resource, True, "PutRight", f"put right: {new.correction.message}", now)


def _event(resource: DiffusionCache, is_good: bool, reason: str, message: str, now: str) -> JSON:
    metadata = resource.metadata
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata.name}.{uuid.uuid4().hex[:16]}", "namespace": metadata.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": metadata.namespace,
            "name": metadata.name,
            "uid": metadata.uid,
        },
        "type": "Normal" if is_good or reason in _USUAL else "Warning",
        "reason": reason,
        "message": printable_lines(without_credentials(message))[:1024],
        "source": {"component": MANAGER},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
