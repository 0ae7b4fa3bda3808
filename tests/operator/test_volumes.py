"""Volumes grow with the resource: the claims do, while StatefulSets stay as they were made."""

from __future__ import annotations

from typing import Any

import pytest

from diffcache_core.resource.spec import DiffusionCache
from diffcache_operator.desired.children import desired_children
from diffcache_operator.metadata import JSON
from diffcache_operator.observed import Observed
from diffcache_operator.plan import plan, with_digest
from diffcache_operator.volumes import growth, keep_claim_templates, plan_volumes
from tests.core.resource.manifests import shared
from tests.operator.resources import IMAGES, as_claims, as_pods, cache

EXPANDING = {"type": "FileSystemResizePending", "status": "True", "message": "waiting for a pod"}


def claim(name: str = "data-emoji-0", asks: str = "10Gi", has: str | None = None, **status: Any) -> JSON:
    """`has`: the volume's real size; as much as it asks for, unless told."""
    return {
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "demo", "resourceVersion": "1"},
        "spec": {"resources": {"requests": {"storage": asks}}, "storageClassName": "fast"},
        "status": {"phase": "Bound", "capacity": {"storage": has or asks}} | status,
    }


def sized(size: str) -> DiffusionCache:
    return cache(cache={"store": {"volume": {"size": size}}})


def seen(*claims: JSON, pods: tuple[str, ...] = ("emoji-0",)) -> Observed:
    return Observed({}, claims=as_claims(*claims), pods=as_pods(*({"metadata": {"name": pod}} for pod in pods)))


def grown(resource: DiffusionCache, observed: Observed) -> list[tuple[str, str]]:
    return [(action.claim.name, action.size) for action in plan_volumes(resource, observed)]


@pytest.mark.parametrize(
    ("found", "size", "grows"),
    [
        (claim(asks="10Gi"), "20Gi", True),
        (claim(asks="10Gi"), "10240Mi", False),
        (claim(asks="10Gi"), "10Gi", False),
        (claim(asks="30Gi"), "20Gi", False),  # made larger by hand: no volume shrinks
        (claim(asks="10Gi", phase="Pending"), "20Gi", False),  # nobody may change a claim without a volume
        (claim(asks="10Gi", has="20Gi"), "20Gi", False),  # a driver gave more than was asked for
    ],
)
def test_a_claim_that_asks_for_less_grows(found: JSON, size: str, grows: bool) -> None:
    assert grown(sized(size), seen(found)) == ([("data-emoji-0", size)] if grows else [])


def test_those_of_redis_and_milvus_and_of_every_replica_grow_by_their_own_size() -> None:
    spec = shared()
    spec["cache"]["store"]["volume"] = {"size": "20Gi"}
    spec["cache"]["ledger"]["provisioned"] = {"volume": {"size": "2Gi"}}
    spec["index"]["standalone"] = {"volume": {"size": "30Gi"}}
    observed = Observed(
        {},
        claims=as_claims(claim("data-emoji-0"), claim("data-emoji-1")),
        ledger_claims=as_claims(claim("data-emoji-redis-0", "1Gi")),
        index_claims=as_claims(claim("data-emoji-milvus-0")),
    )
    assert grown(cache(**spec), observed) == [
        ("data-emoji-0", "20Gi"),
        ("data-emoji-1", "20Gi"),
        ("data-emoji-milvus-0", "30Gi"),
        ("data-emoji-redis-0", "2Gi"),
    ]


def test_a_stateful_set_is_left_as_it_was_made() -> None:
    """Its claim templates are immutable: asking for others would be refused, and with them every other change."""
    before, after = sized("10Gi"), sized("20Gi")
    live = [with_digest(body) for body in desired_children(before, IMAGES)]
    observed = Observed({(one["kind"], one["metadata"]["name"]): one for one in live})
    wanted = keep_claim_templates(desired_children(after, IMAGES), observed)
    assert plan(after, wanted, observed) == []
    (template,) = wanted[-1]["spec"]["volumeClaimTemplates"]
    assert template["spec"]["resources"]["requests"]["storage"] == "10Gi"
    fresh = keep_claim_templates(desired_children(after, IMAGES), Observed({}))
    assert fresh == desired_children(after, IMAGES)


def test_another_size_restarts_no_pod() -> None:
    first, second = (desired_children(sized(size), IMAGES)[-1]["spec"]["template"] for size in ("10Gi", "20Gi"))
    assert first == second


@pytest.mark.parametrize(
    ("observed", "refusals", "told"),
    [
        (seen(claim(asks="20Gi")), {}, None),
        (seen(claim(asks="20Gi", has="10Gi")), {}, ("Reconciling", "VolumeExpanding", "grows to 20Gi")),
        (
            seen(claim(asks="20Gi", has="10Gi", conditions=[EXPANDING])),
            {},
            ("Reconciling", "VolumeExpanding", "kubectl delete pod emoji-0"),
        ),
        (seen(claim(asks="20Gi", has="10Gi", conditions=[EXPANDING]), pods=()), {}, None),
        (seen(claim(phase="Pending", capacity={})), {}, None),  # why it has none is told elsewhere
        (
            seen(claim()),
            {"data-emoji-0": "no class can"},
            ("Stalled", "VolumeNotExpanded", "10Gi (no class can): set allowVolumeExpansion: true in StorageClass"),
        ),
        (
            seen(claim(asks="20Gi", has="10Gi", allocatedResourceStatuses={"storage": "NodeResizeInfeasible"})),
            {},
            ("Stalled", "VolumeNotExpanded", "its driver cannot"),
        ),
        (
            seen(
                claim(
                    asks="20Gi",
                    has="10Gi",
                    conditions=[{"type": "ControllerResizeError", "status": "True", "message": "no room."}],
                )
            ),
            {},
            ("Stalled", "VolumeNotExpanded", "stays at 10Gi (no room): "),
        ),
    ],
)  # fmt: skip
def test_what_there_is_to_say(observed: Observed, refusals: dict[str, str], told: tuple[str, str, str] | None) -> None:
    found = growth(sized("20Gi"), observed, refusals)
    if told is None:
        assert found is None
    else:
        assert found is not None
        assert (found.type, found.reason) == told[:2]
        assert told[2] in found.message
