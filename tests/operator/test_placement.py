"""Where the pods of a cache run, as whom, and what they carry: serving pods, Redis and Milvus."""

from __future__ import annotations

from typing import Any

import pytest

from diffcache_core.resource.spec import DiffusionCache
from diffcache_operator.desired.children import desired_children
from diffcache_operator.desired.placement import CHART_DEFAULTS, PodDefaults
from diffcache_operator.metadata import JSON
from tests.core.resource.manifests import shared
from tests.operator.resources import IMAGES, cache

ASSIGNED = PodDefaults(fixed_ids=False)
POOL: JSON = {
    "nodeSelector": {"pool": "pictures"},
    "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "pictures", "effect": "NoSchedule"}],
    "priorityClassName": "high",
    "labels": {"team": "art"},
    "annotations": {"sidecar.istio.io/inject": "false"},
}
NODES = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}
NODE_AFFINITY: JSON = {"requiredDuringSchedulingIgnoredDuringExecution": NODES}
GPU = {"count": 1}
BESIDE = ("redis", "milvus")


def whole(pod: JSON, redis: JSON | None = None, milvus: JSON | None = None, **serving: Any) -> DiffusionCache:
    """A cache with a Redis and a Milvus of its own, and what each may say of its pod."""
    spec = shared(serving={"pod": pod} | serving)
    spec["cache"]["ledger"]["provisioned"] = {"pod": redis or {}}
    spec["index"]["standalone"] = {"pod": milvus or {}}
    return cache(**spec)


def templates(resource: DiffusionCache, defaults: PodDefaults = CHART_DEFAULTS) -> dict[str, JSON]:
    """By the name of the first container."""
    sets = [one for one in desired_children(resource, IMAGES, defaults) if one["kind"] == "StatefulSet"]
    found = [one["spec"]["template"] for one in sets]
    return {template["spec"]["containers"][0]["name"]: template for template in found}


def ids(template: JSON) -> JSON:
    context = template["spec"]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    return {name: context[name] for name in context.keys() & {"runAsUser", "runAsGroup", "fsGroup"}}


FIXED = {"runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001}


@pytest.mark.parametrize(
    ("defaults", "given", "expected"),
    [
        (CHART_DEFAULTS, None, FIXED),
        (CHART_DEFAULTS, {}, {}),
        (ASSIGNED, None, {}),
        (ASSIGNED, {"runAsUser": 7, "fsGroup": 8}, {"runAsUser": 7, "fsGroup": 8}),
        (CHART_DEFAULTS, {"fsGroup": 8}, {"fsGroup": 8}),
    ],
)
def test_ids_are_fixed_named_or_assigned(defaults: PodDefaults, given: JSON | None, expected: JSON) -> None:
    pod = {} if given is None else {"securityContext": given}
    assert {name: ids(template) for name, template in templates(whole(pod), defaults).items()} == {
        "serving": expected,
        "redis": expected,
        "milvus": expected,
    }


def test_no_container_names_an_id() -> None:
    """Init containers too: OpenShift refuses one that does."""
    resource = cache(**(shared() | {"model": {"source": "org/model"}, "serving": {"pod": {"securityContext": {}}}}))
    for template in templates(resource).values():
        for container in [*template["spec"]["containers"], *template["spec"].get("initContainers", [])]:
            assert not container["securityContext"].keys() & {"runAsUser", "runAsGroup"}


@pytest.mark.parametrize("name", BESIDE)
def test_redis_and_milvus_follow_the_serving_pods(name: str) -> None:
    template = templates(whole(POOL))[name]
    for part in ("nodeSelector", "tolerations", "priorityClassName"):
        assert template["spec"][part] == POOL[part]
    assert template["metadata"]["annotations"] == POOL["annotations"]
    assert template["metadata"]["labels"]["team"] == "art"


@pytest.mark.parametrize("name", BESIDE)
def test_they_can_be_told_otherwise(name: str) -> None:
    own: JSON = {
        "nodeSelector": {},
        "tolerations": [],
        "priorityClassName": "low",
        "labels": {"team": "data"},
        "annotations": {},
        "securityContext": {"runAsUser": 999},
        "runtimeClassName": "gvisor",
    }
    template = templates(whole(POOL, **{name: own}))[name]
    spec = template["spec"]
    assert not spec.get("nodeSelector")
    assert "tolerations" not in spec
    assert (spec["priorityClassName"], spec["runtimeClassName"]) == ("low", "gvisor")
    assert template["metadata"]["labels"]["team"] == "data"
    assert "annotations" not in template["metadata"]
    assert ids(template) == {"runAsUser": 999}
    (other,) = set(BESIDE) - {name}
    assert templates(whole(POOL, **{name: own}))[other] == templates(whole(POOL))[other]


@pytest.mark.parametrize("name", BESIDE)
def test_rules_about_nodes_are_followed_and_those_about_neighbours_are_not(name: str) -> None:
    apart = {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}]}
    pod = {
        "affinity": {"nodeAffinity": NODE_AFFINITY, "podAntiAffinity": apart},
        "runtimeClassName": "nvidia",
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        "env": [{"name": "A", "value": "1"}],
    }
    spec = templates(whole(pod))[name]["spec"]
    assert spec["affinity"] == {"nodeAffinity": NODE_AFFINITY}
    assert not spec.keys() & {"runtimeClassName", "topologySpreadConstraints"}


@pytest.mark.parametrize(
    ("pod", "tolerated"),
    [
        ({}, False),  # a Redis on a GPU node would keep it from being given back
        ({"nodeSelector": {"pool": "gpu"}}, True),
        ({"affinity": {"nodeAffinity": NODE_AFFINITY}}, True),
    ],
)
@pytest.mark.parametrize("name", BESIDE)
def test_on_the_gpus_nodes_they_tolerate_their_taint(name: str, pod: JSON, tolerated: bool) -> None:
    tolerations = templates(whole(pod, gpu=GPU))[name]["spec"].get("tolerations", [])
    assert ("nvidia.com/gpu" in [one["key"] for one in tolerations]) is tolerated


@pytest.mark.parametrize(
    ("resource_name", "keys"),
    [
        ("nvidia.com/gpu", ["nvidia.com/gpu"]),
        ("nvidia.com/gpu.shared", ["nvidia.com/gpu.shared", "nvidia.com/gpu"]),
        ("nvidia.com/mig-1g.10gb", ["nvidia.com/mig-1g.10gb", "nvidia.com/gpu"]),
        ("nvidia.com/mig-1g.10gb.shared", ["nvidia.com/mig-1g.10gb.shared", "nvidia.com/gpu"]),
        ("amd.com/gpu", ["amd.com/gpu"]),
        ("amd.com/cpx_nps4", ["amd.com/cpx_nps4", "amd.com/gpu"]),
    ],
)
def test_every_resource_of_a_domain_tolerates_the_taint_of_its_gpus(resource_name: str, keys: list[str]) -> None:
    resource = cache(serving={"gpu": {"count": 1, "resourceName": resource_name}})
    tolerations = templates(resource)["serving"]["spec"]["tolerations"]
    assert tolerations == [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in keys]


def test_the_account_carries_the_annotations_of_a_web_identity_and_a_new_one_replaces_the_pods() -> None:
    """EKS and AKS hand the identity out when a pod is made. None of the clouds needs the API server's token."""
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/states"}
    resource = cache(serving={"serviceAccount": {"annotations": role}})
    account = desired_children(resource, IMAGES)[0]
    assert account["metadata"]["annotations"] == role
    assert templates(resource)["serving"] != templates(cache())["serving"]
    assert templates(resource)["serving"]["spec"]["automountServiceAccountToken"] is False
