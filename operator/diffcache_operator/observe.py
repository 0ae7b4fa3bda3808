"""Reads what there is: the resource, its children and their pods, afresh each time, but for what pods tell."""

from __future__ import annotations

import asyncio
import re

from diffcache_core.names import API_VERSION, CACHE_LABEL, KIND
from diffcache_operator.clients.api import Api
from diffcache_operator.metadata import milvus_name, redis_name
from diffcache_operator.observed import JSON, Observed, is_stuck, made_by, name_of


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
    serving = made_by(pods, name)
    return Observed(
        children={(child["kind"], name_of(child)): found for child, found in zip(desired, children, strict=True)},
        pods=serving,
        index_pods=made_by(pods, milvus_name(name)),
        ledger_pods=made_by(pods, redis_name(name)),
        claims=_made_for(claims, name),
        index_claims=_made_for(claims, milvus_name(name)),
        ledger_claims=_made_for(claims, redis_name(name)),
        events=await _warnings(api, namespace, pods, children),
    )


def _made_for(claims: list[JSON], workload: str) -> tuple[JSON, ...]:
    """A claim that only carries our label, such as one with a model in it, is not ours to own and to delete."""
    made = re.compile(rf"data-{re.escape(workload)}-\d+")
    return tuple(claim for claim in claims if made.fullmatch(name_of(claim)))


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
