"""Resources as the API server would hand them to the operator."""

from __future__ import annotations

from typing import Any

from diffcache_core.kubernetes.pods import Pod
from diffcache_core.kubernetes.volume_claims import VolumeClaim
from diffcache_core.resource.spec import DiffusionCache
from diffcache_operator.images import Images

IMAGES = Images("serving:1", "milvus:1", "redis:1")
UID = "11111111-2222-3333-4444-555555555555"


def as_pods(*answers: dict[str, Any]) -> tuple[Pod, ...]:
    return tuple(map(Pod.model_validate, answers))


def as_claims(*answers: dict[str, Any]) -> tuple[VolumeClaim, ...]:
    return tuple(map(VolumeClaim.model_validate, answers))


def cache(name: str = "emoji", *, annotations: dict[str, str] | None = None, **spec: Any) -> DiffusionCache:
    return DiffusionCache.model_validate(
        {
            "apiVersion": "diffcache.io/v1alpha1",
            "kind": "DiffusionCache",
            "metadata": {
                "name": name,
                "namespace": "demo",
                "uid": UID,
                "generation": 3,
                "annotations": annotations or {},
            },
            "spec": {"model": {"source": "bundled://emoji"}} | spec,
        }
    )
