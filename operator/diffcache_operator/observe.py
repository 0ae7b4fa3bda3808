"""Reads the resource, its children and their pods anew at each look. It does not read the figures of pods."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence

from diffcache_core.kubernetes.events import Event
from diffcache_core.kubernetes.metadata import ObjectView
from diffcache_core.kubernetes.pods import Pod
from diffcache_core.kubernetes.stateful_sets import StatefulSet
from diffcache_core.kubernetes.volume_claims import VolumeClaim
from diffcache_core.kubernetes.workloads import milvus_name, redis_name
from diffcache_core.names import API_VERSION, CACHE_LABEL, KIND
from diffcache_core.resource.spec import DiffusionCache
from diffcache_operator.clients.api import Api
from diffcache_operator.metadata import Reference
from diffcache_operator.observed import JSON, Observed, made_by


async def read_resource(api: Api, namespace: str, name: str) -> JSON | None:
    return await api.get(API_VERSION, KIND, namespace, name)


def parse_resource(raw: JSON) -> DiffusionCache:
    """Parses a resource without its status, which has a type of its own. Raises pydantic's ValidationError."""
    return DiffusionCache.model_validate({name: value for name, value in raw.items() if name != "status"})


async def read_pods(api: Api, namespace: str, name: str) -> tuple[Pod, ...]:
    """Returns all pods with the label of this cache. Raises ApiError."""
    found = await api.list("v1", "Pod", namespace, label_selector=f"{CACHE_LABEL}={name}")
    return tuple(map(Pod.model_validate, found))


async def observe(api: Api, namespace: str, name: str, children: Sequence[Reference]) -> Observed:
    """Reads everything of one resource. `children`: the objects to look for. Raises ApiError."""
    found, pods, claims = await asyncio.gather(
        asyncio.gather(*(api.get(child.api_version, child.kind, namespace, child.name) for child in children)),
        read_pods(api, namespace, name),
        _read_claims(api, namespace, name),
    )
    sets = [StatefulSet.model_validate(one) for one in found if one is not None and one["kind"] == "StatefulSet"]
    return Observed(
        children={(child.kind, child.name): one for child, one in zip(children, found, strict=True)},
        pods=made_by(pods, name),
        index_pods=made_by(pods, milvus_name(name)),
        ledger_pods=made_by(pods, redis_name(name)),
        claims=_made_for(claims, name),
        index_claims=_made_for(claims, milvus_name(name)),
        ledger_claims=_made_for(claims, redis_name(name)),
        events=await _warnings(api, namespace, _held_up(pods, sets)),
    )


async def _read_claims(api: Api, namespace: str, name: str) -> tuple[VolumeClaim, ...]:
    found = await api.list("v1", "PersistentVolumeClaim", namespace, label_selector=f"{CACHE_LABEL}={name}")
    return tuple(map(VolumeClaim.model_validate, found))


def _made_for(claims: Iterable[VolumeClaim], workload: str) -> tuple[VolumeClaim, ...]:
    """Returns the claims that belong to a workload. Another claim with our label, such as one with a model, is not
    ours."""
    made = re.compile(rf"data-{re.escape(workload)}-\d+")
    return tuple(claim for claim in claims if made.fullmatch(claim.name))


def _held_up(pods: Sequence[Pod], sets: Iterable[StatefulSet]) -> list[ObjectView]:
    """Returns the pods whose containers do not exist yet, and the StatefulSets that want pods and have none."""
    owners = {owner.uid for pod in pods for owner in pod.metadata.owner_references}
    empty = [one for one in sets if one.spec.replicas and one.metadata.uid not in owners]
    return [*(pod for pod in pods if pod.is_stuck), *empty]


async def _warnings(api: Api, namespace: str, about: Iterable[ObjectView]) -> tuple[Event, ...]:
    """Returns warnings about these objects, newest last. Only events say why a mount or the creation of a pod fails."""
    selectors = [f"involvedObject.uid={one.metadata.uid},type=Warning" for one in about]
    found = await asyncio.gather(*(api.list("v1", "Event", namespace, field_selector=one) for one in selectors))
    events = [Event.model_validate(event) for events in found for event in events]
    return tuple(sorted(events, key=lambda event: event.time))
