"""The common parts of Redis and Milvus; each is one pod beside the serving pods."""

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
    """Makes the StatefulSet. `pod`: the parts of the pod's spec that only this component has. `at_work`: False gives 0
    replicas, because a pod at rest would only hold memory."""
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
