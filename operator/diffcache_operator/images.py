"""Which images a resource runs. Pure.

What runs stays: an operator with another default image restarts nothing, also if it was stopped before it could write
the status, or if the status was lost with a backup. But only what has run is held on to: an image that never came up
leaves nothing behind when the resource names it no more.
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
    """Of a resource's pods; empty where it has no such ones."""

    serving: str
    milvus: str
    redis: str


def images_in_use(
    resource: DiffusionCache, status: DiffusionCacheStatus, observed: Observed, defaults: Images
) -> Images:
    """What the pods are to run: the spec's image, else a new choice, else the one that ran last, else the default."""
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
    """For the status: of each the one that a pod has been ready with last."""
    serving, milvus, redis = (live.image if live.is_proven() else "" for live in _workloads(resource, observed))
    return Images(serving or status.serving.image, milvus or status.index.image, redis or status.ledger.image)


def followed_choice(resource: DiffusionCache, status: DiffusionCacheStatus, observed: Observed) -> str:
    """The choice that is history: a pod has been ready since it was made, with it or with what the spec names."""
    chosen, (serving, _, _) = chosen_image(resource), _workloads(resource, observed)
    has_run = serving.is_proven() and serving.image == (resource.spec.serving.image or chosen)
    return chosen if has_run or not chosen else status.serving.chosen


def new_choice(resource: DiffusionCache, status: DiffusionCacheStatus) -> str:
    """What `kubectl diffcache upgrade` chose, until it has run: it does not come back when a later image leaves the
    spec."""
    chosen = chosen_image(resource)
    return chosen if chosen != status.serving.chosen else ""


def chosen_image(resource: DiffusionCache) -> str:
    """By `kubectl diffcache upgrade`, whether it was followed yet or not."""
    return resource.metadata.annotations.get(IMAGE_ANNOTATION, "")


def is_changed(resource: DiffusionCache, status: DiffusionCacheStatus) -> bool:
    """Whether the spec is another than the one that the status is about."""
    return resource.metadata.generation != status.observed_generation


@dataclass(frozen=True)
class _Live:
    """A StatefulSet of ours as it is."""

    image: str = ""
    pods: tuple[Pod, ...] = ()  # of this template

    def is_proven(self) -> bool:
        return any(pod.is_ready for pod in self.pods)

    def holds(self, *, spec_changed: bool) -> bool:
        """Whether the image stays although none is recorded: pods are ready with it; or they run, so they may still
        load a model, and the spec has not just changed its mind."""
        return self.is_proven() or (not spec_changed and any(pod.is_running for pod in self.pods))


def _workloads(resource: DiffusionCache, observed: Observed) -> tuple[_Live, _Live, _Live]:
    """Of serving pods, Milvus and Redis."""
    name = resource.metadata.name
    return (
        _live(resource, observed.stateful_set(name), observed.pods),
        _live(resource, observed.stateful_set(milvus_name(name)), observed.index_pods),
        _live(resource, observed.stateful_set(redis_name(name)), observed.ledger_pods),
    )


def _live(resource: DiffusionCache, stateful_set: StatefulSet | None, pods: Iterable[Pod]) -> _Live:
    """Of a StatefulSet that is ours: another one of that name says nothing."""
    if stateful_set is None or not is_ours(stateful_set.metadata, resource.metadata.name, resource.metadata.uid):
        return _Live()
    return _Live(stateful_set.image, of_template(pods, stateful_set, stateful_set.metadata.generation))
