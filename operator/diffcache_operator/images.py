"""Which images a resource runs. Pure.

What runs stays: an operator with another default image restarts nothing, also if it was stopped before it could write
the status, or if the status was lost with a backup.
"""

from __future__ import annotations

from diffcache_core.names import IMAGE_ANNOTATION
from diffcache_core.spec import DiffusionCache, IndexType
from diffcache_core.status import DiffusionCacheStatus
from diffcache_operator.desired.metadata import JSON


def serving_image(
    resource: DiffusionCache, status: DiffusionCacheStatus, stateful_set: JSON | None, default: str
) -> str:
    """The spec's, else the one that `kubectl diffcache upgrade` chose, else the recorded or running one."""
    chosen = resource.metadata.annotations.get(IMAGE_ANNOTATION, "")
    return resource.spec.serving.image or chosen or status.serving.image or _running(stateful_set) or default


def milvus_image(resource: DiffusionCache, stateful_set: JSON | None, default: str) -> str:
    standalone = resource.spec.index.standalone if resource.spec.index.type is IndexType.STANDALONE else None
    return (standalone.image if standalone else None) or _running(stateful_set) or default


def _running(stateful_set: JSON | None) -> str:
    return str(stateful_set["spec"]["template"]["spec"]["containers"][0]["image"]) if stateful_set else ""
