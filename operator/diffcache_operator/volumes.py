"""The sizes of volumes: which claims grow, and how far they are. Pure.

A StatefulSet's volumeClaimTemplates cannot change, so it keeps the size that it was made with and need not be
recreated. Instead its claims grow; those of later replicas grow as soon as they have a volume.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal

from diffcache_core.kubernetes.volume_claims import VolumeClaim
from diffcache_core.quantities import amount_of
from diffcache_core.resource.spec import DiffusionCache
from diffcache_operator.conditions import ConditionState
from diffcache_operator.metadata import JSON
from diffcache_operator.observed import Observed, name_of
from diffcache_operator.plan import GrowVolume

REFUSED = "VolumeNotExpanded"

_FAILED = ("ControllerResizeError", "NodeResizeError")  # conditions of a claim, since Kubernetes 1.31
_INFEASIBLE = ("ControllerResizeInfeasible", "NodeResizeInfeasible")
_AWAITS_POD = "FileSystemResizePending"


def keep_claim_templates(desired: list[JSON], observed: Observed) -> list[JSON]:
    """Returns the children; each StatefulSet keeps the volume sizes that it was made with."""
    return [_as_made(body, observed.child(body["kind"], name_of(body))) for body in desired]


def _as_made(body: JSON, live: JSON | None) -> JSON:
    if body["kind"] != "StatefulSet" or live is None:
        return body
    sizes = {name_of(one): one["spec"]["resources"] for one in live["spec"].get("volumeClaimTemplates", [])}
    templates = [
        one | {"spec": one["spec"] | {"resources": sizes.get(name_of(one), one["spec"]["resources"])}}
        for one in body["spec"]["volumeClaimTemplates"]
    ]
    return body | {"spec": body["spec"] | {"volumeClaimTemplates": templates}}


def plan_volumes(resource: DiffusionCache, observed: Observed) -> list[GrowVolume]:
    """Returns an action for each claim that asks for less than the resource wants and whose volume is too small."""
    return [GrowVolume(claim, size) for claim, size in _too_small(resource, observed) if _less(claim.wanted, size)]


def growth(resource: DiffusionCache, observed: Observed, refusals: Mapping[str, str]) -> ConditionState | None:
    """Returns a condition about volumes that are too small. `refusals`: for each claim, the server's message."""
    running = {pod.name for pod in (*observed.pods, *observed.index_pods, *observed.ledger_pods)}
    for claim, size in _too_small(resource, observed):
        if claim.name in refusals:
            return _not_expanded(claim, refusals[claim.name])
        conditions = {one.type: one.message for one in claim.status.conditions if one.status == "True"}
        failed = [conditions[kind] for kind in _FAILED if kind in conditions]
        if failed or claim.status.allocated_resource_statuses.get("storage") in _INFEASIBLE:
            return _not_expanded(claim, failed[0] if failed else "its driver cannot")
        pod = claim.name.removeprefix("data-")
        if _AWAITS_POD not in conditions:
            return _expanding(claim, size, "its driver expands it")
        if pod in running:  # a cache at rest has no pod: its volume grows when the pod starts again
            return _expanding(claim, size, f"if its driver wants the pod to start anew, `kubectl delete pod {pod}`")
    return None


def _expanding(claim: VolumeClaim, size: str, how: str) -> ConditionState:
    return ConditionState("Reconciling", "True", "VolumeExpanding", f"the volume {claim.name} grows to {size}: {how}")


def _not_expanded(claim: VolumeClaim, why: str) -> ConditionState:
    has = claim.capacity or "its size"
    storage_class = claim.spec.storage_class_name or "its StorageClass"
    return ConditionState(
        "Stalled",
        "True",
        REFUSED,
        f"the volume {claim.name} stays at {has} ({why.rstrip('.')}): set allowVolumeExpansion: true in "
        f"StorageClass {storage_class} if its driver can expand, or create this DiffusionCache anew",
    )


def _too_small(resource: DiffusionCache, observed: Observed) -> Iterator[tuple[VolumeClaim, str]]:
    """Yields the claims whose volume is too small. Kubernetes forbids to resize a claim that has no volume yet."""
    for claim, size in _claims(resource, observed):
        if claim.is_bound and _less(claim.capacity, size):
            yield claim, size


def _claims(resource: DiffusionCache, observed: Observed) -> Iterator[tuple[VolumeClaim, str]]:
    """Yields each claim and the size that the resource wants for it."""
    spec = resource.spec
    for claim in observed.claims:
        yield claim, spec.cache.store.volume.size
    if spec.index.standalone is not None:
        for claim in observed.index_claims:
            yield claim, spec.index.standalone.volume.size
    if spec.cache.ledger.provisioned is not None:
        for claim in observed.ledger_claims:
            yield claim, spec.cache.ledger.provisioned.volume.size


def _less(has: str, wanted: str) -> bool:
    """Returns whether both amounts are known and the first is smaller."""
    known, enough = amount_of(has), amount_of(wanted)
    return isinstance(known, Decimal) and isinstance(enough, Decimal) and known < enough
