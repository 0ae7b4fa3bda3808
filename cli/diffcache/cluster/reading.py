"""Reads a resource and the objects that belong to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from diffcache.cluster.errors import ClusterError
from diffcache.cluster.kubectl import RESOURCE, Kubectl, checked_name
from diffcache.cluster.objects import Kind, Resource, parse_list, parse_object
from diffcache_core.kubernetes.events import Event
from diffcache_core.kubernetes.pods import Pod
from diffcache_core.kubernetes.volume_claims import VolumeClaim
from diffcache_core.names import CACHE_LABEL, KIND

Item = TypeVar("Item")


@dataclass(frozen=True)
class Found(Generic[Item]):
    """Items, or in `missing` the reason why they could not be read: a user may be allowed to read a resource, but not
    all objects that belong to it."""

    items: Sequence[Item] = ()
    missing: str = ""


@dataclass(frozen=True)
class Host:
    """A resource with the objects that belong to it."""

    resource: Resource
    pods: Found[Pod]
    claims: Found[VolumeClaim]
    events: Found[Event]


def read_resource(kubectl: Kubectl, name: str) -> Resource:
    """Reads the resource `name`. Raises ClusterError."""
    return parse_object(Resource, kubectl.read(RESOURCE, "--", checked_name(name)))


def read_pods(kubectl: Kubectl, name: str) -> Sequence[Pod]:
    """Reads the pods of the resource `name`. Raises ClusterError."""
    return _read_labelled(kubectl, Pod, "pods", name)


def read_surroundings(kubectl: Kubectl, name: str) -> Host:
    """Reads the resource `name` and what belongs to it. Raises ClusterError if the resource cannot be read."""
    resource = read_resource(kubectl, name)
    # By uid, because events of an earlier resource with this name stay for an hour.
    about = f"--field-selector=involvedObject.kind={KIND},involvedObject.uid={resource.metadata.uid}"
    with ThreadPoolExecutor() as threads:  # in parallel, because each kubectl waits mostly for the network
        pods = threads.submit(_found, lambda: read_pods(kubectl, name))
        claims = threads.submit(_found, lambda: _read_labelled(kubectl, VolumeClaim, "persistentvolumeclaims", name))
        events = threads.submit(_found, lambda: parse_list(Event, kubectl.read("events", about)))
        return Host(resource, pods.result(), claims.result(), events.result())


def _read_labelled(kubectl: Kubectl, kind: type[Kind], plural: str, name: str) -> Sequence[Kind]:
    return parse_list(kind, kubectl.read(plural, f"--selector={CACHE_LABEL}={checked_name(name)}"))


def _found(read: Callable[[], Sequence[Item]]) -> Found[Item]:
    try:
        return Found(read())
    except ClusterError as error:
        return Found(missing=str(error))
