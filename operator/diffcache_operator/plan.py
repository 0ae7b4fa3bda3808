"""What has to be done so that what there is becomes what should be. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from diffcache_core.names import API_VERSION, KIND
from diffcache_core.quantities import amount_of
from diffcache_core.spec import DiffusionCache, LedgerType, ReclaimPolicy, SourceKind
from diffcache_operator.desired.metadata import owner_reference
from diffcache_operator.observed import Observed, controller_of, is_ours, name_of

JSON = dict[str, Any]

APPLIED_ANNOTATION = "diffcache.io/applied"
"""On each child: the digest of what was applied. It shows that a field has to be taken away again."""


class Obstacle(Exception):
    """What keeps something from being done. The message says what it is, and what to do.

    `reason`: of a condition. `passing`: it goes away by itself.
    """

    reason = ""

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


class NameTaken(Obstacle):
    """An object that is not ours has the name of a child; a passing one belongs to an earlier resource of our name and
    is on its way out."""

    reason = "NameTaken"


class ClaimDeleted(Obstacle):
    """A volume claim was deleted: it stays as long as its pod does."""

    reason = "ClaimDeleted"


@dataclass(frozen=True)
class Apply:
    body: JSON

    @property
    def kind(self) -> str:
        return str(self.body["kind"])

    def __str__(self) -> str:
        return f"{self.kind} {name_of(self.body)}"


@dataclass(frozen=True)
class SetOwners:
    """Of a volume claim: owned by the resource it goes with it, unowned it stays."""

    claim: JSON
    owners: list[JSON]
    kind = "PersistentVolumeClaim"

    def __str__(self) -> str:
        return f"the owners of {self.kind} {name_of(self.claim)}"


@dataclass(frozen=True)
class GrowVolume:
    """Asks for a larger volume behind a claim."""

    claim: JSON
    size: str
    kind = "PersistentVolumeClaim"

    def __str__(self) -> str:
        return f"the size {self.size} of {self.kind} {name_of(self.claim)}"


Action = Apply | SetOwners | GrowVolume


def plan_owners(resource: DiffusionCache, observed: Observed) -> list[Action]:
    """Before anything else: whoever deletes the resource next relies on its `reclaimPolicy`. Raises Obstacle."""
    actions: list[Action] = []
    wanted = resource.spec.reclaim_policy is ReclaimPolicy.DELETE
    for claim in (*observed.claims, *observed.index_claims, *observed.ledger_claims):
        owners = claim["metadata"].get("ownerReferences", [])
        mine = [owner for owner in owners if _is_cache(owner) and owner["uid"] == resource.metadata.uid]
        if any(_is_cache(owner) and owner not in mine for owner in owners):
            raise NameTaken(f"the volume {name_of(claim)} is still being deleted", passing=True)
        if "deletionTimestamp" in claim["metadata"]:
            raise _deleted(claim, resource, observed)
        others = [owner for owner in owners if owner not in mine]
        new = [*others, owner_reference(resource)] if wanted else others
        if new != owners:
            actions.append(SetOwners(claim, new))
    return actions


def _deleted(claim: JSON, resource: DiffusionCache, observed: Observed) -> ClaimDeleted:
    """Whoever deletes a claim learns nothing: it is only marked, and its pod goes on with it until it ends."""
    if claim in observed.index_claims:
        held, pods = "the index, which is filled again from the ledger", observed.index_pods
    elif claim in observed.ledger_claims:
        held, pods = "the ledger, and with it the whole cache", observed.ledger_pods
    else:
        held, pods = _held_by_serving(resource), observed.pods
    name = name_of(claim)
    pod = next((pod for pod in pods if name == f"data-{name_of(pod)}"), None)
    if pod is None or "deletionTimestamp" in pod["metadata"]:
        return ClaimDeleted(f"the claim {name} was deleted and is on its way out", passing=True)
    return ClaimDeleted(
        f"the claim {name} was deleted, and nothing takes that back: as soon as the pod {name_of(pod)} ends, {held}, "
        f"is lost. `kubectl delete pod {name_of(pod)}` ends it now, and the next one starts with an empty volume",
        passing=False,
    )


def _held_by_serving(resource: DiffusionCache) -> str:
    spec = resource.spec
    parts = [
        *(["the cache"] if spec.cache.store.s3 is None or spec.cache.ledger.type is LedgerType.EMBEDDED else []),
        *(["the downloaded model"] if SourceKind.of(spec.model.source) is SourceKind.HUB else []),
    ]
    return f"what it holds ({' and '.join(parts)})" if parts else "what it holds"


def plan(resource: DiffusionCache, desired: list[JSON], observed: Observed) -> list[Action]:
    """In order. Nothing for what is as it should be, so that at rest nothing is written. Raises Obstacle."""
    actions: list[Action] = []
    for body in map(with_digest, desired):
        live = observed.child(body["kind"], name_of(body))
        if live is not None:
            _check_ownership(resource, live)
        if live is None or not includes(live, body):
            actions.append(Apply(body))
    return actions


def with_digest(body: JSON) -> JSON:
    text = json.dumps(body, sort_keys=True)
    annotations = body["metadata"].get("annotations", {}) | {
        APPLIED_ANNOTATION: hashlib.sha256(text.encode()).hexdigest()[:16]
    }
    return body | {"metadata": body["metadata"] | {"annotations": annotations}}


def includes(live: Any, wanted: Any) -> bool:
    """Whether everything wanted is there; what others added does not count.

    Lists of named things are compared by name, all others item by item; amounts of resources by their value, for the
    server writes 0.5 CPU as 500m.
    """
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            (_same_amounts if key in ("requests", "limits") else includes)(live.get(key), value)
            or (key not in live and value in ({}, []))
            for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        if not isinstance(live, list):
            return False
        if all(isinstance(item, dict) and "name" in item for item in wanted):
            named = {item.get("name"): item for item in live if isinstance(item, dict)}
            return all(includes(named.get(item["name"]), item) for item in wanted)
        return len(live) == len(wanted) and all(map(includes, live, wanted))
    return bool(live == wanted)


def _same_amounts(live: Any, wanted: Any) -> bool:
    return isinstance(live, dict) and all(
        key in live and amount_of(str(live[key])) == amount_of(str(value)) for key, value in wanted.items()
    )


def _check_ownership(resource: DiffusionCache, live: JSON) -> None:
    kind, name, owner = live["kind"], name_of(live), controller_of(live)
    if is_ours(live, resource.metadata.name, resource.metadata.uid):
        return
    if owner is None:
        advice = "delete it, or name the DiffusionCache otherwise"
        raise NameTaken(f"a {kind} {name} that is not this cache's exists: {advice}", passing=False)
    if _is_cache(owner) and owner["name"] == resource.metadata.name:
        what = f"the {kind} {name} of an earlier {KIND} of this name is still being deleted"
        raise NameTaken(what, passing=True)
    whose = f"{owner['kind']} {owner['name']}"
    raise NameTaken(f"the {kind} {name} belongs to {whose}: name the DiffusionCache otherwise", passing=False)


def _is_cache(owner: JSON) -> bool:
    return bool(owner["kind"] == KIND and owner["apiVersion"] == API_VERSION)
