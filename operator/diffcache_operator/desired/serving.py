"""The StatefulSet of serving pods.

It is no Deployment, because that would start the new pod while the old one still uses the cache's folder.
"""

from __future__ import annotations

from diffcache_core.kubernetes.workloads import SERVING
from diffcache_core.resource.spec import DiffusionCache, VolumeSpec, is_shared
from diffcache_operator.desired.placement import PodDefaults
from diffcache_operator.desired.pod import pod_template
from diffcache_operator.metadata import JSON, child, labels, pods_service_name, selector_labels

LOOK_UP_SECONDS = 10
"""Seconds after which the headless Service's name surely resolves to a new pod: CoreDNS answers from its cache for 5
s."""


def stateful_set(resource: DiffusionCache, image: str, defaults: PodDefaults) -> JSON:
    name = resource.metadata.name
    # In a rollout, replace the next pod only when clients can have found the previous new one.
    pause: JSON = {"minReadySeconds": LOOK_UP_SECONDS} if is_shared(resource.spec) else {}
    return child(
        "apps/v1",
        "StatefulSet",
        resource,
        name,
        SERVING,
        spec={
            "replicas": resource.spec.serving.replicas,
            "serviceName": pods_service_name(name),
            "podManagementPolicy": "Parallel",  # else a broken pod would stop its own replacement
            "updateStrategy": {"type": "RollingUpdate"},
            **pause,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector_labels(name, SERVING)},
            "template": pod_template(resource, image, defaults),
            "volumeClaimTemplates": [claim_template(name, SERVING, resource.spec.cache.store.volume)],
            # The owners of the claims decide whether volumes are deleted (plan.py). With Delete here, a user who
            # deletes only the StatefulSet would delete the cache.
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        },
    )


def claim_template(cache: str, component: str, volume: VolumeSpec) -> JSON:
    spec: JSON = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": volume.size}}}
    if volume.storage_class_name:
        spec["storageClassName"] = volume.storage_class_name
    return {"metadata": {"name": "data", "labels": labels(cache, component)}, "spec": spec}
