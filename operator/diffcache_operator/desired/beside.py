"""What Redis and Milvus, each one pod beside the serving pods, have in common."""

from __future__ import annotations

from diffcache_core.resource.pod import Placement
from diffcache_core.resource.spec import DiffusionCache, VolumeSpec
from diffcache_operator.desired.placement import PodDefaults, beside, placed
from diffcache_operator.desired.serving import claim_template
from diffcache_operator.metadata import JSON, child, labels, selector_labels


def stateful_set_beside(
    resource: DiffusionCache,
    name: str,
    component: str,
    pod: JSON,
    own: Placement,
    volume: VolumeSpec,
    defaults: PodDefaults,
    *,
    at_work: bool,
) -> JSON:
    """`pod`: the parts of its spec that are its own. `at_work`: at rest it would only hold memory."""
    cache = resource.metadata.name
    placement = beside(resource.spec.serving, own)
    metadata: JSON = {"labels": labels(cache, component) | (placement.labels or {})}
    if placement.annotations:
        metadata["annotations"] = placement.annotations
    spec = {
        "serviceAccountName": cache,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        **placed(placement, defaults),
        **pod,
    }
    return child(
        "apps/v1",
        "StatefulSet",
        resource,
        name,
        component,
        spec={
            "replicas": int(at_work),
            "serviceName": name,
            "podManagementPolicy": "Parallel",  # else a pod that never comes up would stop its own replacement
            "selector": {"matchLabels": selector_labels(cache, component)},
            "template": {"metadata": metadata, "spec": spec},
            "volumeClaimTemplates": [claim_template(cache, component, volume)],
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        },
    )
