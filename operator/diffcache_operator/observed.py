"""The objects as they were read, and helpers that find something in them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from diffcache_core.kubernetes.events import Event
from diffcache_core.kubernetes.metadata import Metadata
from diffcache_core.kubernetes.pods import Pod
from diffcache_core.kubernetes.stateful_sets import StatefulSet
from diffcache_core.kubernetes.volume_claims import VolumeClaim
from diffcache_core.names import CACHE_LABEL
from diffcache_operator.figures import Figures

JSON = dict[str, Any]
Id = tuple[str, str]  # kind and name


@dataclass(frozen=True)
class Observed:
    """`children` by kind and name; None for one that does not exist. They stay JSON, to compare them with what is
    desired."""

    children: dict[Id, JSON | None]
    pods: tuple[Pod, ...] = ()  # serving pods
    index_pods: tuple[Pod, ...] = ()
    ledger_pods: tuple[Pod, ...] = ()
    claims: tuple[VolumeClaim, ...] = ()  # of the serving pods
    index_claims: tuple[VolumeClaim, ...] = ()
    ledger_claims: tuple[VolumeClaim, ...] = ()
    events: tuple[Event, ...] = ()  # warnings about what does not come up, newest last
    figures: Figures | None = None

    def child(self, kind: str, name: str) -> JSON | None:
        return self.children.get((kind, name))

    def stateful_set(self, name: str) -> StatefulSet | None:
        found = self.child("StatefulSet", name)
        return None if found is None else StatefulSet.model_validate(found)


def name_of(child: JSON) -> str:
    return str(child["metadata"]["name"])


def made_by(pods: Iterable[Pod], workload: str) -> tuple[Pod, ...]:
    """Returns the pods of the StatefulSet of this name. A pod that only carries our labels is not ours: neither its
    state nor its figures count."""
    made = [(pod, pod.metadata.controller) for pod in pods]
    return tuple(pod for pod, by in made if by and (by.kind, by.name) == ("StatefulSet", workload))


def of_template(pods: Iterable[Pod], workload: StatefulSet, generation: int) -> tuple[Pod, ...]:
    """Returns the pods made from the template that the StatefulSet has had since this generation. Returns none until
    its controller has observed that generation."""
    if workload.status.observed_generation < generation:
        return ()
    return tuple(pod for pod in pods if pod.revision == workload.status.update_revision)


def is_ours(child: Metadata, cache: str, uid: str) -> bool:
    """Returns whether the resource with this uid controls the object, or nobody does and it has our label."""
    owner = child.controller
    return owner.uid == uid if owner is not None else child.labels.get(CACHE_LABEL) == cache
