"""Decides which actions turn the observed objects into the desired ones. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from diffcache_core.choices import SourceKind
from diffcache_core.kubernetes.metadata import NO_TIME, Metadata, OwnerReference
from diffcache_core.kubernetes.volume_claims import VolumeClaim
from diffcache_core.names import API_VERSION, KIND, MANAGER
from diffcache_core.resource.spec import DiffusionCache, LedgerType, ReclaimPolicy
from diffcache_operator.differences import differences
from diffcache_operator.metadata import owner_reference
from diffcache_operator.observed import Id, Observed, is_ours, name_of

JSON = dict[str, Any]

APPLIED_ANNOTATION = "diffcache.io/applied"
"""Annotation on each child: the digest of what was applied. A changed digest shows that a field must be removed."""

SHOWN_FIELDS = 5  # how many changed fields a message names: enough to recognise the change


class Obstacle(Exception):
    """Something prevents an action. The message says what it is, and what to do.

    `reason`: the reason of the condition. `passing`: the obstacle disappears by itself.
    """

    reason = ""

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


class NameTaken(Obstacle):
    """An object that is not ours has the name of a child.

    It is passing if the object belongs to a deleted resource of the same name and is being deleted.
    """

    reason = "NameTaken"


class ClaimDeleted(Obstacle):
    """A volume claim was deleted. It exists until its pod ends."""

    reason = "ClaimDeleted"


@dataclass(frozen=True)
class Apply:
    """Applies an object. `correction`: the change by hand that this undoes; empty if the object is new or we change
    it."""

    body: JSON
    correction: str = ""

    @property
    def kind(self) -> str:
        return str(self.body["kind"])

    def __str__(self) -> str:
        return f"{self.kind} {name_of(self.body)}"


@dataclass(frozen=True)
class SetOwners:
    """Sets the owners of a volume claim. A claim that the resource owns is deleted with it; without an owner it
    stays."""

    claim: VolumeClaim
    owners: tuple[OwnerReference, ...]
    kind = "PersistentVolumeClaim"

    def __str__(self) -> str:
        return f"the owners of {self.kind} {self.claim.name}"


@dataclass(frozen=True)
class GrowVolume:
    """Asks for a larger volume behind a claim."""

    claim: VolumeClaim
    size: str
    kind = "PersistentVolumeClaim"

    def __str__(self) -> str:
        return f"the size {self.size} of {self.kind} {self.claim.name}"


Action = Apply | SetOwners | GrowVolume


def plan_owners(resource: DiffusionCache, observed: Observed) -> list[Action]:
    """Makes the owners of all claims follow `reclaimPolicy`. Raises Obstacle.

    This comes before everything else: a user may delete the resource at any time and relies on its `reclaimPolicy`.
    """
    actions: list[Action] = []
    wanted = resource.spec.reclaim_policy is ReclaimPolicy.DELETE
    for claim in (*observed.claims, *observed.index_claims, *observed.ledger_claims):
        owners = claim.metadata.owner_references
        mine = [owner for owner in owners if _is_cache(owner) and owner.uid == resource.metadata.uid]
        if any(_is_cache(owner) and owner not in mine for owner in owners):
            raise NameTaken(f"the volume {claim.name} is still being deleted", passing=True)
        if claim.is_leaving:
            raise _deleted(claim, resource, observed)
        others = tuple(owner for owner in owners if owner not in mine)
        new = (*others, OwnerReference.model_validate(owner_reference(resource))) if wanted else others
        if new != owners:
            actions.append(SetOwners(claim, new))
    return actions


def _deleted(claim: VolumeClaim, resource: DiffusionCache, observed: Observed) -> ClaimDeleted:
    """Explains a deleted claim: kubectl shows no problem, for Kubernetes keeps a deleted claim until its pod ends."""
    if claim in observed.index_claims:
        held, pods = "the index, which is filled again from the ledger", observed.index_pods
    elif claim in observed.ledger_claims:
        held, pods = "the ledger, and with it the whole cache", observed.ledger_pods
    else:
        held, pods = _held_by_serving(resource), observed.pods
    name = claim.name
    pod = next((pod for pod in pods if name == f"data-{pod.name}"), None)
    if pod is None or pod.is_leaving:
        return ClaimDeleted(f"the claim {name} was deleted and is on its way out", passing=True)
    return ClaimDeleted(
        f"the claim {name} was deleted, and nothing takes that back: as soon as the pod {pod.name} ends, {held}, "
        f"is lost. `kubectl delete pod {pod.name}` ends it now, and the next one starts with an empty volume",
        passing=False,
    )


def _held_by_serving(resource: DiffusionCache) -> str:
    spec = resource.spec
    parts = [
        *(["the cache"] if spec.cache.store.s3 is None or spec.cache.ledger.type is LedgerType.EMBEDDED else []),
        *(["the downloaded model"] if SourceKind.of(spec.model.source) is SourceKind.HUB else []),
    ]
    return f"what it holds ({' and '.join(parts)})" if parts else "what it holds"


def plan(
    resource: DiffusionCache, desired: list[JSON], observed: Observed, seen: Collection[Id] = frozenset()
) -> list[Action]:
    """Returns the actions in order, and none for an object that is already right: at rest nothing is written.

    `seen`: the children that existed at the last look. Raises Obstacle.
    """
    actions: list[Action] = []
    for body in map(with_digest, desired):
        kind, name = body["kind"], name_of(body)
        live = observed.child(kind, name)
        if live is None:
            actions.append(Apply(body, f"{kind} {name}: was deleted" if (kind, name) in seen else ""))
            continue
        _check_ownership(resource, live)
        if changed := list(differences(live, body)):
            actions.append(Apply(body, _correction(live, body, changed)))
    return actions


def _correction(live: JSON, body: JSON, changed: list[str]) -> str:
    """Describes the change by hand. Empty if our last apply was different: then it is we who change the object."""
    metadata = Metadata.model_validate(live["metadata"])
    if metadata.annotations.get(APPLIED_ANNOTATION) != body["metadata"]["annotations"][APPLIED_ANNOTATION]:
        return ""
    shown = ", ".join(changed[:SHOWN_FIELDS]) + (" and more" if len(changed) > SHOWN_FIELDS else "")
    others = [one for one in metadata.managed_fields if one.manager != MANAGER and one.subresource != "status"]
    last = max(others, key=lambda one: one.time or NO_TIME, default=None)
    return f"{live['kind']} {metadata.name}: {shown} changed" + (f" by {last.manager}" if last else "")


def with_digest(body: JSON) -> JSON:
    text = json.dumps(body, sort_keys=True)
    annotations = body["metadata"].get("annotations", {}) | {
        APPLIED_ANNOTATION: hashlib.sha256(text.encode()).hexdigest()[:16]
    }
    return body | {"metadata": body["metadata"] | {"annotations": annotations}}


def _check_ownership(resource: DiffusionCache, live: JSON) -> None:
    metadata = Metadata.model_validate(live["metadata"])
    kind, name, owner = live["kind"], metadata.name, metadata.controller
    if is_ours(metadata, resource.metadata.name, resource.metadata.uid):
        return
    if owner is None:
        advice = "delete it, or name the DiffusionCache otherwise"
        raise NameTaken(f"a {kind} {name} that is not this cache's exists: {advice}", passing=False)
    if _is_cache(owner) and owner.name == resource.metadata.name:
        what = f"the {kind} {name} of an earlier {KIND} of this name is still being deleted"
        raise NameTaken(what, passing=True)
    whose = f"{owner.kind} {owner.name}"
    raise NameTaken(f"the {kind} {name} belongs to {whose}: name the DiffusionCache otherwise", passing=False)


def _is_cache(owner: OwnerReference) -> bool:
    return (owner.kind, owner.api_version) == (KIND, API_VERSION)
