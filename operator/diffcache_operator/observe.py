"""What there is: the resource, its children and their pods, read afresh."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from diffcache_core.names import API_VERSION, CACHE_LABEL, KIND
from diffcache_operator.clients.api import Api
from diffcache_operator.clients.figures import Figures, scrape
from diffcache_operator.desired.metadata import INDEX, SERVING

JSON = dict[str, Any]
Id = tuple[str, str]  # kind and name


@dataclass(frozen=True)
class Observed:
    """`children` by kind and name: None where there is none."""

    children: dict[Id, JSON | None]
    pods: tuple[JSON, ...] = ()  # serving pods
    index_pods: tuple[JSON, ...] = ()
    claims: tuple[JSON, ...] = ()
    events: tuple[JSON, ...] = ()  # warnings about what does not come up, newest last
    figures: Figures | None = None

    def child(self, kind: str, name: str) -> JSON | None:
        return self.children.get((kind, name))


async def read_resource(api: Api, namespace: str, name: str) -> JSON | None:
    return await api.get(API_VERSION, KIND, namespace, name)


async def observe(api: Api, namespace: str, name: str, desired: list[JSON]) -> Observed:
    """Raises ApiError. `desired` names what to look for."""
    selector = f"{CACHE_LABEL}={name}"
    children, pods, claims = await asyncio.gather(
        asyncio.gather(*(api.get(child["apiVersion"], child["kind"], namespace, name_of(child)) for child in desired)),
        api.list("v1", "Pod", namespace, label_selector=selector),
        api.list("v1", "PersistentVolumeClaim", namespace, label_selector=selector),
    )
    serving = tuple(pod for pod in pods if component_of(pod) == SERVING)
    return Observed(
        children={(child["kind"], name_of(child)): found for child, found in zip(desired, children, strict=True)},
        pods=serving,
        index_pods=tuple(pod for pod in pods if component_of(pod) == INDEX),
        claims=tuple(claims),
        events=await _warnings(api, namespace, pods, children),
        figures=await scrape(pod["status"]["podIP"] for pod in serving if is_ready(pod)),
    )


async def _warnings(api: Api, namespace: str, pods: list[JSON], children: list[JSON | None]) -> tuple[JSON, ...]:
    """Events say why a volume cannot be mounted or a pod not be made; nothing else does."""
    stuck = [pod for pod in pods if is_stuck(pod)]
    owned = {owner["uid"] for pod in pods for owner in pod["metadata"].get("ownerReferences", [])}
    sets = [child for child in children if child and child["kind"] == "StatefulSet"]
    stuck += [one for one in sets if one["spec"].get("replicas", 1) and one["metadata"]["uid"] not in owned]
    found = await asyncio.gather(
        *(
            api.list(
                "v1", "Event", namespace, field_selector=f"involvedObject.uid={one['metadata']['uid']},type=Warning"
            )
            for one in stuck
        )
    )
    events = [event for events in found for event in events]
    return tuple(sorted(events, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or ""))


def name_of(thing: JSON) -> str:
    return str(thing["metadata"]["name"])


def component_of(thing: JSON) -> str:
    return str(thing["metadata"].get("labels", {}).get("app.kubernetes.io/component", ""))


def is_ready(pod: JSON) -> bool:
    """Ready, has an address, and is not on its way out."""
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return ready and bool(pod["status"].get("podIP")) and "deletionTimestamp" not in pod["metadata"]


def is_stuck(pod: JSON) -> bool:
    """Placed on a node, and its containers are being made: for a moment, or until somebody makes a Secret."""
    waiting = [
        status.get("state", {}).get("waiting", {}).get("reason")
        for status in pod.get("status", {}).get("containerStatuses", [])
    ]
    return pod.get("status", {}).get("phase") == "Pending" and "ContainerCreating" in waiting
