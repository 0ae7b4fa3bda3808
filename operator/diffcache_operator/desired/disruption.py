"""How many pods of a shared cache a node drain may evict at once."""

from __future__ import annotations

from diffcache_core.kubernetes.workloads import SERVING
from diffcache_core.resource.spec import DiffusionCache
from diffcache_operator.metadata import JSON, child, selector_labels


def disruption_budget(resource: DiffusionCache) -> JSON:
    """Allows one eviction at a time. It also allows to evict a single pod, so it can stay when replicas become 1."""
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
            # A pod that does not serve must not block the drain of its node.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    )
