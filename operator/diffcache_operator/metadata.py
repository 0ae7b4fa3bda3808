"""Names, labels and ownership of children."""

from __future__ import annotations

from typing import Any, NamedTuple

from diffcache_core.kubernetes.workloads import COMPONENT_LABEL
from diffcache_core.names import API_VERSION, CACHE_LABEL, KIND, MANAGER
from diffcache_core.resource.spec import DiffusionCache

JSON = dict[str, Any]


class Reference(NamedTuple):
    """Identifies a child in its resource's namespace."""

    api_version: str
    kind: str
    name: str


def pods_service_name(cache: str) -> str:
    return f"{cache}-pods"


def config_name(cache: str) -> str:
    return f"{cache}-config"


def selector_labels(cache: str, component: str) -> dict[str, str]:
    """Returns the labels that select pods. A StatefulSet's selector cannot change, so nothing may be added here."""
    return {
        "app.kubernetes.io/name": "diffcache",
        "app.kubernetes.io/instance": cache,
        COMPONENT_LABEL: component,
    }


def labels(cache: str, component: str) -> dict[str, str]:
    """Returns the labels of a child. They hold no version: an upgrade of the operator must not change a pod
    template."""
    return selector_labels(cache, component) | {
        "app.kubernetes.io/part-of": "diffcache",
        "app.kubernetes.io/managed-by": MANAGER,
        CACHE_LABEL: cache,
    }


def owner_reference(resource: DiffusionCache) -> JSON:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": resource.metadata.name,
        "uid": resource.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def child(api_version: str, kind: str, resource: DiffusionCache, name: str, component: str, **body: Any) -> JSON:
    """Makes an object that the resource owns. If the resource has no uid (`diffcache render`), the object has no owner
    yet."""
    metadata: JSON = {
        "name": name,
        "namespace": resource.metadata.namespace,
        "labels": labels(resource.metadata.name, component),
    }
    if resource.metadata.uid:
        metadata["ownerReferences"] = [owner_reference(resource)]
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}
