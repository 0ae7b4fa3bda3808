"""What has to be done so that what there is becomes what should be. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from diffcache_core.names import API_VERSION, CACHE_LABEL, KIND
from diffcache_core.spec import DiffusionCache, ReclaimPolicy
from diffcache_operator.desired.metadata import owner_reference
from diffcache_operator.observed import Observed, name_of

JSON = dict[str, Any]

APPLIED_ANNOTATION = "diffcache.io/applied"
"""On each child: the digest of what was applied. It shows that a field has to be taken away again."""


class NameTaken(Exception):
    """An object that is not ours has the name of a child. The message says which, and what to do."""


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


Action = Apply | SetOwners


def plan(resource: DiffusionCache, desired: list[JSON], observed: Observed) -> list[Action]:
    """In order. Nothing for what is as it should be, so that at rest nothing is written. Raises NameTaken."""
    actions: list[Action] = []
    for body in map(with_digest, desired):
        live = observed.child(body["kind"], name_of(body))
        if live is not None:
            _check_ownership(resource, live)
        if live is None or not includes(live, body):
            actions.append(Apply(body))
    wanted = resource.spec.reclaim_policy is ReclaimPolicy.DELETE
    for claim in observed.claims:
        owners = claim["metadata"].get("ownerReferences", [])
        others = [owner for owner in owners if not _is_cache(owner)]
        new = [*others, owner_reference(resource)] if wanted else others
        if new != owners:
            actions.append(SetOwners(claim, new))
    return actions


def with_digest(body: JSON) -> JSON:
    text = json.dumps(body, sort_keys=True)
    annotations = body["metadata"].get("annotations", {}) | {
        APPLIED_ANNOTATION: hashlib.sha256(text.encode()).hexdigest()[:16]
    }
    return body | {"metadata": body["metadata"] | {"annotations": annotations}}


def includes(live: Any, wanted: Any) -> bool:
    """Whether everything wanted is there; what others added does not count.

    Lists of named things are compared by name, all others item by item. Where the server writes a value differently
    (0.5 CPU becomes 500m) this says False, and an apply that changes nothing follows.
    """
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            includes(live.get(key), value) or (key not in live and value in ({}, [])) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        if not isinstance(live, list):
            return False
        if all(isinstance(item, dict) and "name" in item for item in wanted):
            named = {item.get("name"): item for item in live if isinstance(item, dict)}
            return all(includes(named.get(item["name"]), item) for item in wanted)
        return len(live) == len(wanted) and all(map(includes, live, wanted))
    return bool(live == wanted)


def _check_ownership(resource: DiffusionCache, live: JSON) -> None:
    """Ours, or left over from a time without owner: else it is somebody else's."""
    kind, name = live["kind"], name_of(live)
    owner = next((o for o in live["metadata"].get("ownerReferences", []) if o.get("controller")), None)
    ours = live["metadata"].get("labels", {}).get(CACHE_LABEL) == resource.metadata.name
    if owner is None and not ours:
        raise NameTaken(
            f"a {kind} {name} that is not this cache's exists: delete it, or name the DiffusionCache otherwise"
        )
    if owner is not None and owner["uid"] != resource.metadata.uid:
        raise NameTaken(
            f"the {kind} {name} belongs to {owner['kind']} {owner['name']}: wait until that is gone, or name the "
            "DiffusionCache otherwise"
        )


def _is_cache(owner: JSON) -> bool:
    return bool(owner["kind"] == KIND and owner["apiVersion"] == API_VERSION)
