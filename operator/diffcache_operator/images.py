"""Which images a resource runs. Pure.

What runs stays: an operator with another default image restarts nothing, also if it was stopped before it could write
the status, or if the status was lost with a backup.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffcache_core.names import IMAGE_ANNOTATION
from diffcache_core.spec import DiffusionCache
from diffcache_core.status import DiffusionCacheStatus
from diffcache_operator.desired.metadata import JSON, milvus_name, redis_name
from diffcache_operator.observed import Observed, is_ours


@dataclass(frozen=True)
class Images:
    """Of a resource's pods; empty where it has no such ones."""

    serving: str
    milvus: str
    redis: str


def images_in_use(
    resource: DiffusionCache, status: DiffusionCacheStatus, observed: Observed, defaults: Images
) -> Images:
    name = resource.metadata.name
    return Images(
        serving=serving_image(resource, status, observed.child("StatefulSet", name), defaults.serving),
        milvus=milvus_image(resource, status, observed.child("StatefulSet", milvus_name(name)), defaults.milvus),
        redis=redis_image(resource, status, observed.child("StatefulSet", redis_name(name)), defaults.redis),
    )


def serving_image(
    resource: DiffusionCache, status: DiffusionCacheStatus, stateful_set: JSON | None, default: str
) -> str:
    """The spec's, else one that `kubectl diffcache upgrade` chose just now, else the recorded or running one.

    A choice that was followed once is history: it does not come back when a later image leaves the spec.
    """
    chosen = chosen_image(resource)
    new_choice = chosen if chosen != status.serving.chosen else ""
    running = _running(resource, stateful_set)
    return resource.spec.serving.image or new_choice or status.serving.image or running or default


def chosen_image(resource: DiffusionCache) -> str:
    """By `kubectl diffcache upgrade`, whether it was followed yet or not."""
    return resource.metadata.annotations.get(IMAGE_ANNOTATION, "")


def milvus_image(
    resource: DiffusionCache, status: DiffusionCacheStatus, stateful_set: JSON | None, default: str
) -> str:
    """Empty if the resource has no Milvus of its own."""
    standalone = resource.spec.index.standalone
    if standalone is None:
        return ""
    return standalone.image or status.index.image or _running(resource, stateful_set) or default


def redis_image(resource: DiffusionCache, status: DiffusionCacheStatus, stateful_set: JSON | None, default: str) -> str:
    """Empty if the resource has no Redis of its own."""
    provisioned = resource.spec.cache.ledger.provisioned
    if provisioned is None:
        return ""
    return provisioned.image or status.ledger.image or _running(resource, stateful_set) or default


def _running(resource: DiffusionCache, stateful_set: JSON | None) -> str:
    """Of a StatefulSet that is ours: another one of that name says nothing."""
    if stateful_set is None or not is_ours(stateful_set, resource.metadata.name, resource.metadata.uid):
        return ""
    return str(stateful_set["spec"]["template"]["spec"]["containers"][0]["image"])
