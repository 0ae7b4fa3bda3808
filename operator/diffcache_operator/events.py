"""Kubernetes Events about a resource: only when its Ready condition turns."""

from __future__ import annotations

import uuid

from diffcache_core.names import API_VERSION, KIND, MANAGER
from diffcache_core.spec import DiffusionCache
from diffcache_core.status import DiffusionCacheStatus
from diffcache_operator.desired.metadata import JSON


def transition_event(
    resource: DiffusionCache, old: DiffusionCacheStatus, new: DiffusionCacheStatus, now: str
) -> JSON | None:
    """For `kubectl describe` and alerts; None if reason and status are what they were."""
    before, after = old.condition("Ready"), new.condition("Ready")
    assert after is not None
    if before is not None and (before.status, before.reason) == (after.status, after.reason):
        return None
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
        "type": "Normal" if after.status == "True" or after.reason in ("Starting", "RollingOut") else "Warning",
        "reason": after.reason,
        "message": after.message[:1024],
        "source": {"component": MANAGER},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
