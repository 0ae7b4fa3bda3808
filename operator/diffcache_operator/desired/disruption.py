"""What a drained node may take from a shared cache at once."""

from __future__ import annotations

from diffcache_core.kubernetes.workloads import SERVING
from diffcache_core.resource.spec import DiffusionCache
from diffcache_operator.metadata import JSON, child, selector_labels


def disruption_budget(resource: DiffusionCache) -> JSON:
    """One pod at a time. It lets a single pod go, so it may stay when the replicas come down to one."""
    name = resource.metadata.name
    return child(
        "policy/v1",
        "PodDisruptionBudget",
        resource,
        name,
        SERVING,
        spec={
            "maxUnavailable": 1,
            "selector": {"matchLabels": selector_labels(name, SERVING)},
            # A pod that does not serve anyway must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    )
