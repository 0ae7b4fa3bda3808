"""The StatefulSet of serving pods.

Not a Deployment: that would start the new pod while the old one still holds the cache's folder.
"""

from __future__ import annotations

from diffcache_core.kubernetes.workloads import SERVING
from diffcache_core.resource.spec import DiffusionCache, VolumeSpec, is_shared
from diffcache_operator.desired.placement import PodDefaults
from diffcache_operator.desired.pod import pod_template
from diffcache_operator.metadata import JSON, child, labels, pods_service_name, selector_labels

LOOK_UP_SECONDS = 10
"""A new pod's address is behind the headless Service's name for sure: CoreDNS answers for 5 s from its memory."""


def stateful_set(resource: DiffusionCache, image: str, defaults: PodDefaults) -> JSON:
    name = resource.metadata.name
    # In a rollout the next pod goes only when clients have learnt of the one before it.
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
            "podManagementPolicy": "Parallel",  # and so a broken pod does not stop its own replacement
            "updateStrategy": {"type": "RollingUpdate"},
            **pause,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector_labels(name, SERVING)},
            "template": pod_template(resource, image, defaults),
            "volumeClaimTemplates": [claim_template(name, SERVING, resource.spec.cache.store.volume)],
            # What becomes of the volumes is decided by who owns them (plan.py): here a hand that deletes only the
            # StatefulSet would delete the cache.
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        },
    )


def claim_template(cache: str, component: str, volume: VolumeSpec) -> JSON:
    spec: JSON = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": volume.size}}}
    if volume.storage_class_name:
        spec["storageClassName"] = volume.storage_class_name
    return {"metadata": {"name": "data", "labels": labels(cache, component)}, "spec": spec}
