"""What there is, as it was read: and how to see in an object what the operator wants to know of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from diffcache_core.names import CACHE_LABEL
from diffcache_operator.figures import Figures

JSON = dict[str, Any]
Id = tuple[str, str]  # kind and name


@dataclass(frozen=True)
class Observed:
    """`children` by kind and name: None where there is none."""

    children: dict[Id, JSON | None]
    pods: tuple[JSON, ...] = ()  # serving pods
    index_pods: tuple[JSON, ...] = ()
    ledger_pods: tuple[JSON, ...] = ()
    claims: tuple[JSON, ...] = ()  # of the serving pods
    index_claims: tuple[JSON, ...] = ()
    ledger_claims: tuple[JSON, ...] = ()
    events: tuple[JSON, ...] = ()  # warnings about what does not come up, newest last
    figures: Figures | None = None

    def child(self, kind: str, name: str) -> JSON | None:
        return self.children.get((kind, name))


def name_of(thing: JSON) -> str:
    return str(thing["metadata"]["name"])


def made_by(pods: Iterable[JSON], workload: str) -> tuple[JSON, ...]:
    """Those of the StatefulSet of this name. One that only carries our labels is somebody else's: neither its state nor
    its figures count."""
    made = [(pod, controller_of(pod)) for pod in pods]
    return tuple(pod for pod, by in made if by and (by["kind"], by["name"]) == ("StatefulSet", workload))


def is_ready(pod: JSON) -> bool:
    """Ready, has an address, and is not on its way out."""
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return ready and bool(pod["status"].get("podIP")) and "deletionTimestamp" not in pod["metadata"]


def revision_of(pod: JSON) -> str | None:
    """Of the template that a StatefulSet made it from."""
    revision = pod["metadata"].get("labels", {}).get("controller-revision-hash")
    return None if revision is None else str(revision)


def is_stuck(pod: JSON) -> bool:
    """Placed on a node, and its containers are being made: for a moment, or until somebody makes a Secret."""
    status = pod.get("status", {})
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    waiting = [container.get("state", {}).get("waiting", {}).get("reason") for container in containers]
    return status.get("phase") == "Pending" and set(waiting) in ({"ContainerCreating"}, {"PodInitializing"})


def is_ours(child: JSON, cache: str, uid: str) -> bool:
    """Controlled by the resource with this uid; or by nobody, and labelled as its child."""
    owner = controller_of(child)
    if owner is not None:
        return bool(owner["uid"] == uid)
    return bool(child["metadata"].get("labels", {}).get(CACHE_LABEL) == cache)


def controller_of(child: JSON) -> JSON | None:
    return next((owner for owner in child["metadata"].get("ownerReferences", []) if owner.get("controller")), None)
