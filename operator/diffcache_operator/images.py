"""Decides which images a resource runs. Pure.

The running image stays: an operator with another default image restarts nothing, even if the last operator ended before
it wrote the status, or if a restored backup has no status. But only an image that has run is kept: an image that never
became ready is forgotten when the resource no longer names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from diffcache_core.kubernetes.pods import Pod
from diffcache_core.kubernetes.stateful_sets import StatefulSet
from diffcache_core.kubernetes.workloads import milvus_name, redis_name
from diffcache_core.names import IMAGE_ANNOTATION
from diffcache_core.resource.spec import DiffusionCache
from diffcache_core.resource.status import DiffusionCacheStatus
from diffcache_operator.observed import Observed, is_ours, of_template


@dataclass(frozen=True)
class Images:
    """The images of a resource's pods; empty for pods that it does not have."""

    serving: str
    milvus: str
    redis: str


def images_in_use(
    resource: DiffusionCache, status: DiffusionCacheStatus, observed: Observed, defaults: Images
) -> Images:
    """Returns the images to run: the spec's image, else a new choice of `kubectl diffcache upgrade`, else the one that
    ran last, else the default."""
    spec, changed = resource.spec, is_changed(resource, status)
    serving, milvus, redis = _workloads(resource, observed)

    def image(named: str, recorded: str, live: _Live, default: str) -> str:
        return named or recorded or (live.image if live.holds(spec_changed=changed) else "") or default

    standalone, provisioned = spec.index.standalone, spec.cache.ledger.provisioned
    named = spec.serving.image or new_choice(resource, status)
    return Images(
        serving=image(named, status.serving.image, serving, defaults.serving),
        milvus=image(standalone.image or "", status.index.image, milvus, defaults.milvus) if standalone else "",
        redis=image(provisioned.image or "", status.ledger.image, redis, defaults.redis) if provisioned else "",
    )


def recorded_images(resource: DiffusionCache, status: DiffusionCacheStatus, observed: Observed) -> Images:
    """Returns the images for the status: for each workload the image with which a pod was ready last."""
    serving, milvus, redis = (live.image if live.is_proven() else "" for live in _workloads(resource, observed))
    return Images(serving or status.serving.image, milvus or status.index.image, redis or status.ledger.image)


def followed_choice(resource: DiffusionCache, status: DiffusionCacheStatus, observed: Observed) -> str:
    """Returns the last choice of `kubectl diffcache upgrade` that is done: a pod was ready with it, or with the spec's
    image."""
    chosen, (serving, _, _) = chosen_image(resource), _workloads(resource, observed)
    has_run = serving.is_proven() and serving.image == (resource.spec.serving.image or chosen)
    return chosen if has_run or not chosen else status.serving.chosen


def new_choice(resource: DiffusionCache, status: DiffusionCacheStatus) -> str:
    """Returns the choice of `kubectl diffcache upgrade` until it has run; then empty. So an old choice does not come
    back when the spec names an image and later drops it."""
    chosen = chosen_image(resource)
    return chosen if chosen != status.serving.chosen else ""


def chosen_image(resource: DiffusionCache) -> str:
    """Returns the image that `kubectl diffcache upgrade` chose, whether it has run yet or not; empty if there is
    none."""
    return resource.metadata.annotations.get(IMAGE_ANNOTATION, "")


def is_changed(resource: DiffusionCache, status: DiffusionCacheStatus) -> bool:
    """Returns whether the spec has changed since the status was written."""
    return resource.metadata.generation != status.observed_generation


@dataclass(frozen=True)
class _Live:
    """An existing StatefulSet of ours."""

    image: str = ""
    pods: tuple[Pod, ...] = ()  # those of its current template

    def is_proven(self) -> bool:
        return any(pod.is_ready for pod in self.pods)

    def holds(self, *, spec_changed: bool) -> bool:
        """Returns whether the image stays although the status records none. It stays if pods are ready with it, or if
        they run and may still load a model while the spec has not changed."""
        return self.is_proven() or (not spec_changed and any(pod.is_running for pod in self.pods))


def _workloads(resource: DiffusionCache, observed: Observed) -> tuple[_Live, _Live, _Live]:
    """Returns the StatefulSets of serving pods, Milvus and Redis."""
    name = resource.metadata.name
    return (
        _live(resource, observed.stateful_set(name), observed.pods),
        _live(resource, observed.stateful_set(milvus_name(name)), observed.index_pods),
        _live(resource, observed.stateful_set(redis_name(name)), observed.ledger_pods),
    )


def _live(resource: DiffusionCache, stateful_set: StatefulSet | None, pods: Iterable[Pod]) -> _Live:
    """Returns what a StatefulSet runs; empty if it is not ours."""
    if stateful_set is None or not is_ours(stateful_set.metadata, resource.metadata.name, resource.metadata.uid):
        return _Live()
    return _Live(stateful_set.image, of_template(pods, stateful_set, stateful_set.metadata.generation))
