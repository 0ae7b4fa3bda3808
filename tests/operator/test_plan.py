"""What is written, and above all what is not."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from diffcache_operator.desired.children import desired_children
from diffcache_operator.differences import includes
from diffcache_operator.metadata import JSON, owner_reference
from diffcache_operator.observed import Observed
from diffcache_operator.plan import (
    APPLIED_ANNOTATION,
    Apply,
    ClaimDeleted,
    NameTaken,
    Obstacle,
    SetOwners,
    plan,
    plan_owners,
    with_digest,
)
from tests.operator.resources import IMAGES, UID, as_claims, as_pods, cache

RESOURCE = cache()
OURS = owner_reference(RESOURCE)
EARLIER = OURS | {"uid": "an-earlier-one"}
DESIRED = desired_children(RESOURCE, IMAGES)


def as_stored(body: JSON) -> JSON:
    """What the server makes of it: fields of its own, defaults, other managers' additions."""
    stored = copy.deepcopy(with_digest(body))
    stored["metadata"] |= {"uid": "x", "resourceVersion": "7", "managedFields": []}
    stored["metadata"]["labels"]["team"] = "ours"
    if body["kind"] == "StatefulSet":
        stored["spec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst"
        container = stored["spec"]["template"]["spec"]["containers"][0]
        container["terminationMessagePath"] = "/dev/termination-log"
        container["env"].insert(0, {"name": "FOREIGN", "value": "1"})
        stored["spec"]["template"]["spec"]["containers"].append({"name": "sidecar", "image": "mesh:1"})
    return stored


def observed(children: list[JSON], claims: tuple[JSON, ...] = ()) -> Observed:
    found = {(child["kind"], child["metadata"]["name"]): child for child in children}
    ids = [(child["kind"], child["metadata"]["name"]) for child in DESIRED]
    return Observed(children={one: found.get(one) for one in ids}, claims=as_claims(*claims))


def applied(actions: list[Any]) -> list[str]:
    return [action.body["kind"] for action in actions if isinstance(action, Apply)]


def test_an_empty_cluster_gets_everything_in_the_order_of_use() -> None:
    assert applied(plan(RESOURCE, DESIRED, observed([]))) == [
        "ServiceAccount",
        "ConfigMap",
        "Service",
        "Service",
        "StatefulSet",
    ]


def test_at_rest_nothing_is_written() -> None:
    assert plan(RESOURCE, DESIRED, observed([as_stored(child) for child in DESIRED])) == []


@pytest.mark.parametrize("index", range(len(DESIRED)))
def test_a_deleted_child_comes_back_alone(index: int) -> None:
    stored = [as_stored(child) for child in DESIRED]
    gone = stored.pop(index)
    actions = plan(RESOURCE, DESIRED, observed(stored))
    assert [a.body["metadata"]["name"] for a in actions if isinstance(a, Apply)] == [gone["metadata"]["name"]]


def test_a_field_changed_by_hand_is_repaired() -> None:
    stored = [as_stored(child) for child in DESIRED]
    stored[-1]["spec"]["template"]["spec"]["containers"][0]["image"] = "other:2"
    assert applied(plan(RESOURCE, DESIRED, observed(stored))) == ["StatefulSet"]


def test_what_was_put_right_is_told_with_who_had_changed_it() -> None:
    stored = [as_stored(child) for child in DESIRED]
    stored[-1]["spec"]["replicas"] = 3
    stored[-1]["metadata"]["managedFields"] = [
        {"manager": "diffcache-operator", "time": "2026-11-24T10:00:00Z"},
        {"manager": "kubectl", "subresource": "scale", "time": "2026-11-24T10:05:00Z"},
        {"manager": "kube-controller-manager", "subresource": "status", "time": "2026-11-24T10:06:00Z"},
    ]
    (action,) = plan(RESOURCE, DESIRED, observed(stored))
    assert isinstance(action, Apply)
    assert action.correction == "StatefulSet emoji: spec.replicas changed by kubectl"
    other = cache(serving={"pod": {"nodeSelector": {"gpu": "a100"}}})  # here it is the resource that has changed
    (action,) = [a for a in plan(other, desired_children(other, IMAGES), observed(stored)) if a.kind == "StatefulSet"]
    assert isinstance(action, Apply)
    assert action.correction == ""


def test_a_child_that_was_deleted_is_told_and_one_that_is_new_is_not() -> None:
    stored = [as_stored(child) for child in DESIRED]
    gone = stored.pop(0)
    (new,) = plan(RESOURCE, DESIRED, observed(stored))
    (again,) = plan(RESOURCE, DESIRED, observed(stored), {(gone["kind"], gone["metadata"]["name"])})
    assert isinstance(new, Apply)
    assert isinstance(again, Apply)
    assert (new.correction, again.correction) == ("", "ServiceAccount emoji: was deleted")


def test_a_field_that_is_wanted_no_longer_is_taken_away() -> None:
    """Nothing is missing in what is there, so only the digest shows it."""
    resource = cache(serving={"pod": {"nodeSelector": {"gpu": "a100"}}})
    before = [as_stored(child) for child in desired_children(resource, IMAGES)]
    assert applied(plan(RESOURCE, DESIRED, observed(before))) == ["StatefulSet"]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"labels": {}, "ownerReferences": []}, ["Service emoji", "not this cache's", "delete it"]),
        (
            {"ownerReferences": [{"kind": "Deployment", "name": "web", "uid": "z", "controller": True}]},
            ["belongs to Deployment web"],
        ),
        (
            {"ownerReferences": [owner_reference(RESOURCE) | {"uid": "x", "name": "another"}]},
            ["belongs to DiffusionCache another", "name the DiffusionCache otherwise"],
        ),
    ],
)
def test_somebody_elses_object_is_left_alone(metadata: JSON, words: list[str]) -> None:
    stored = [as_stored(child) for child in DESIRED]
    client_service = stored[3]
    assert client_service["metadata"]["name"] == "emoji"
    client_service["metadata"] |= metadata
    with pytest.raises(NameTaken) as caught:
        plan(RESOURCE, DESIRED, observed(stored))
    assert not caught.value.passing
    for word in words:
        assert word in str(caught.value)


def test_children_of_an_earlier_resource_of_the_name_are_waited_for() -> None:
    stored = [as_stored(child) for child in DESIRED]
    stored[0]["metadata"]["ownerReferences"] = [EARLIER]
    with pytest.raises(NameTaken, match="still being deleted") as caught:
        plan(RESOURCE, DESIRED, observed(stored))
    assert caught.value.passing


@pytest.mark.parametrize("change", [{"ownerReferences": "earlier"}, {"deletionTimestamp": "2026-11-24T10:00:00Z"}])
def test_a_volume_of_an_earlier_resource_is_not_inherited(change: JSON) -> None:
    volume = claim()
    volume["metadata"] |= {"ownerReferences": [EARLIER]} if "ownerReferences" in change else change
    with pytest.raises(Obstacle, match="data-emoji-0") as caught:
        plan_owners(RESOURCE, observed([], claims=(volume,)))
    assert caught.value.passing


@pytest.mark.parametrize(
    ("where", "workload", "words"),
    [
        ("claims", "emoji", ["the cache", "kubectl delete pod emoji-0"]),
        ("index_claims", "emoji-milvus", ["filled again", "kubectl delete pod emoji-milvus-0"]),
        ("ledger_claims", "emoji-redis", ["the whole cache", "kubectl delete pod emoji-redis-0"]),
    ],
)
def test_whoever_deleted_a_claim_in_use_is_told_what_goes_and_when(where: str, workload: str, words: list[str]) -> None:
    volume = claim(OURS)
    volume["metadata"] |= {"name": f"data-{workload}-0", "deletionTimestamp": "2026-11-24T10:00:00Z"}
    pod = {"metadata": {"name": f"{workload}-0", "uid": "p"}}
    pods = where.replace("claims", "pods")
    there: dict[str, Any] = {where: as_claims(volume), pods: as_pods(pod)}
    with pytest.raises(ClaimDeleted) as caught:
        plan_owners(RESOURCE, replace(observed([]), **there))
    assert not caught.value.passing  # hence Stalled: it waits for a person
    for word in words:
        assert word in str(caught.value)
    pod["metadata"]["deletionTimestamp"] = "2026-11-24T10:00:00Z"
    there[pods] = as_pods(pod)
    with pytest.raises(ClaimDeleted) as caught:
        plan_owners(RESOURCE, replace(observed([]), **there))
    assert caught.value.passing


def test_a_child_that_was_orphaned_is_adopted() -> None:
    stored = [as_stored(child) for child in DESIRED]
    for child in stored:
        del child["metadata"]["ownerReferences"]
    assert len(plan(RESOURCE, DESIRED, observed(stored))) == len(DESIRED)


def claim(*owners: JSON) -> JSON:
    return {"kind": "PersistentVolumeClaim", "metadata": {"name": "data-emoji-0", "ownerReferences": list(owners)}}


def written(action: SetOwners) -> list[JSON]:
    return [owner.as_json() for owner in action.owners]


FOREIGN = {"apiVersion": "v1", "kind": "Backup", "name": "b", "uid": "b"}


@pytest.mark.parametrize(
    ("policy", "before", "after"),
    [
        ("Delete", [], [OURS]),
        ("Delete", [FOREIGN], [FOREIGN, OURS]),
        ("Delete", [OURS], None),
        ("Retain", [OURS], []),
        ("Retain", [FOREIGN, OURS], [FOREIGN]),
        ("Retain", [], None),
    ],
)
def test_volumes_go_with_the_resource_or_stay(policy: str, before: list[JSON], after: list[JSON] | None) -> None:
    resource = cache(reclaimPolicy=policy)
    there = observed([], claims=(claim(*before),))
    owners = [written(action) for action in plan_owners(resource, there) if isinstance(action, SetOwners)]
    assert owners == ([] if after is None else [after])


def test_the_ledgers_volume_goes_with_the_resource() -> None:
    volume = claim()
    volume["metadata"]["name"] = "data-emoji-redis-0"
    (action,) = plan_owners(RESOURCE, replace(observed([]), ledger_claims=as_claims(volume)))
    assert isinstance(action, SetOwners)
    assert written(action) == [OURS]


def test_the_digest_is_of_what_is_applied() -> None:
    digests = {with_digest(body)["metadata"]["annotations"][APPLIED_ANNOTATION] for body in DESIRED}
    assert len(digests) == len(DESIRED)
    assert with_digest(DESIRED[0]) == with_digest(copy.deepcopy(DESIRED[0]))


@pytest.mark.parametrize(
    ("live", "wanted", "yes"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({}, {"a": {}}, True),
        ({"a": None}, {"a": 1}, False),
        ([{"name": "x", "v": 1}, {"name": "y"}], [{"name": "y"}], True),
        ([{"name": "x", "v": 1}], [{"name": "x", "v": 2}], False),
        ([1, 2], [1], False),
        ([1, 2], [1, 2], True),
        ({"limits": {"cpu": "500m", "memory": "1Gi"}}, {"limits": {"cpu": 0.5, "memory": "1024Mi"}}, True),
        ({"requests": {"cpu": "2"}}, {"requests": {"cpu": 2}}, True),
        ({"requests": {"cpu": "2"}}, {"requests": {"cpu": "2m"}}, False),
        ({"requests": {"cpu": "1k", "memory": "10E"}}, {"requests": {"cpu": "1e3", "memory": "10E"}}, True),
        ({"requests": {"cpu": "100m", "memory": "1P"}}, {"requests": {"cpu": "1e-1", "memory": "1000T"}}, True),
        ({"requests": {"cpu": "1m", "memory": "1100m"}}, {"requests": {"cpu": "0.0001", "memory": "1.1"}}, True),
        ({"requests": {"cpu": "2m"}}, {"requests": {"cpu": "1500u"}}, True),
        ({"requests": {"memory": "1Ei"}}, {"requests": {"memory": "1024Pi"}}, True),
        ({"requests": {"memory": "64Mi"}}, {"requests": {"memory": "+64Mi"}}, True),
        ({"requests": {"memory": "1E"}}, {"requests": {"memory": "1e1"}}, False),
        ({"requests": {"memory": "9" * 40}}, {"requests": {"memory": "9" * 40}}, True),
        ({"requests": {"storage": "10Gi"}}, {"requests": {"cpu": 2}}, False),
        ({"env": "500m"}, {"env": "0.5"}, False),
        (None, {"a": 1}, False),
        ({"a": True}, {"a": True}, True),
    ],
)
def test_includes(live: Any, wanted: Any, yes: bool) -> None:
    assert includes(live, wanted) is yes


def test_the_uid_is_the_resources() -> None:
    assert OURS["uid"] == UID
