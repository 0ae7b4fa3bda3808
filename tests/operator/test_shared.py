"""Children of a cache that replicas share, and that how many there are reaches no pod template."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from diffcache_core.resource.spec import DiffusionCache
from diffcache_core.serving_config import ServingConfig
from diffcache_operator.desired.children import desired_children
from diffcache_operator.desired.placement import CHART_DEFAULTS
from diffcache_operator.desired.redis import redis_stateful_set
from diffcache_operator.metadata import JSON, selector_labels
from tests.operator.resources import IMAGES, cache
from tests.operator.shared import RENTED, SHARED


def children(resource: DiffusionCache, **options: Any) -> dict[tuple[str, str], JSON]:
    made = desired_children(resource, IMAGES, **options)
    return {(child["kind"], child["metadata"]["name"]): child for child in made}


def config(resource: DiffusionCache) -> ServingConfig:
    name = f"{resource.metadata.name}-config"
    return ServingConfig.model_validate_json(children(resource)["ConfigMap", name]["data"]["serving.json"])


def template(resource: DiffusionCache) -> JSON:
    return children(resource)["StatefulSet", resource.metadata.name]["spec"]["template"]


def changed(resource: DiffusionCache, **parts: Any) -> DiffusionCache:
    """With these fields of some blocks of the spec."""
    document = resource.model_dump(mode="json", by_alias=True, exclude_none=True)
    for block, fields in parts.items():
        document["spec"][block] |= fields
    return DiffusionCache.model_validate(document)


def redis(**provisioned: Any) -> JSON:
    resource = cache(cache={"ledger": {"type": "Provisioned", "provisioned": provisioned}})
    return redis_stateful_set(resource, "redis:1", CHART_DEFAULTS, at_work=True)


def setting(of: JSON, name: str) -> str | None:
    words = of["spec"]["template"]["spec"]["containers"][0]["args"]
    return words[words.index(f"--{name}") + 1] if f"--{name}" in words else None


@pytest.mark.parametrize("resource", [SHARED, RENTED], ids=lambda resource: resource.metadata.name)
@pytest.mark.parametrize(
    "change",
    [
        {"serving": {"replicas": 4}},
        {"serving": {"replicas": 1}},
        {"serving": {"replicas": 0}},
        {"autoscaling": {"mode": "Operator", "maxReplicas": 8}},
        {"autoscaling": {"mode": "Disabled"}},
    ],
)
def test_who_scales_and_how_far_restarts_nothing(resource: DiffusionCache, change: dict[str, Any]) -> None:
    """Redis and Milvus neither: only their own replicas follow."""
    before, after = children(resource), children(changed(resource, **change))
    assert before.keys() == after.keys()  # what is made of a cache is never deleted, so nothing may depend on it either
    for one, child in before.items():
        old, new = copy.deepcopy(child), copy.deepcopy(after[one])
        if child["kind"] == "StatefulSet":
            old["spec"].pop("replicas"), new["spec"].pop("replicas")
        assert old == new


def test_pods_are_spread_over_nodes_unless_the_user_has_a_word() -> None:
    (constraint,) = template(SHARED)["spec"]["topologySpreadConstraints"]
    assert constraint["labelSelector"]["matchLabels"].items() <= template(SHARED)["metadata"]["labels"].items()
    assert (constraint["topologyKey"], constraint["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    zones = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    other = changed(SHARED, serving={"pod": {"topologySpreadConstraints": [zones]}})
    assert template(other)["spec"]["topologySpreadConstraints"] == [zones]
    nothing = changed(SHARED, serving={"pod": {"topologySpreadConstraints": []}})
    assert "topologySpreadConstraints" not in template(nothing)["spec"]
    assert "topologySpreadConstraints" not in template(cache())["spec"]


def test_a_drained_node_takes_one_pod_at_a_time() -> None:
    budget = children(SHARED)["PodDisruptionBudget", "shared"]["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"] == selector_labels("shared", "serving")
    assert not [kind for kind, _ in children(cache()) if kind == "PodDisruptionBudget"]


def test_a_rollout_waits_until_clients_know_the_new_pod() -> None:
    stateful_set = children(SHARED)["StatefulSet", "shared"]["spec"]
    assert stateful_set["minReadySeconds"] > 0
    assert stateful_set["updateStrategy"] == {"type": "RollingUpdate"}  # one pod at a time
    assert "minReadySeconds" not in children(cache())["StatefulSet", "emoji"]["spec"]


def test_redis_keeps_what_it_is_told_and_throws_nothing_away() -> None:
    assert {name: setting(redis(), name) for name in ("appendonly", "appendfsync", "maxmemory-policy", "save")} == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
    }


@pytest.mark.parametrize(
    ("volume", "storage"),
    [({}, "1Gi"), ({"storageClassName": "fast"}, "1Gi"), ({"storageClassName": "fast", "size": "3Gi"}, "3Gi")],
)
def test_the_volume_of_redis(volume: dict[str, Any], storage: str) -> None:
    (claim,) = redis(volume=volume)["spec"]["volumeClaimTemplates"]
    assert claim["spec"].get("storageClassName") == volume.get("storageClassName")
    assert claim["spec"]["resources"]["requests"] == {"storage": storage}


@pytest.mark.parametrize(
    ("limit", "bound"),
    [({}, None), ({"memory": "1Gi"}, str(2**29)), ({"memory": 2**30}, str(2**29)), ({"cpu": 1}, None)],
)
def test_redis_refuses_before_the_kernel_kills_it(limit: dict[str, Any], bound: str | None) -> None:
    assert setting(redis(resources={"limits": limit}), "maxmemory") == bound


def test_redis_restarts_no_serving_pod() -> None:
    ledger = {"type": "Provisioned", "provisioned": {"image": "redis:9", "resources": {"limits": {"memory": "2Gi"}}}}
    other = changed(SHARED, cache={"ledger": ledger})
    assert template(other) == template(SHARED)


@pytest.mark.parametrize(
    ("replicas", "pods_left", "at_work"), [(2, False, 1), (2, True, 1), (0, False, 0), (0, True, 1)]
)
def test_ledger_and_index_leave_after_the_last_pod(replicas: int, pods_left: bool, at_work: int) -> None:
    """Until then it writes there what it has."""
    made = children(changed(SHARED, serving={"replicas": replicas}), pods_left=pods_left)
    assert made["StatefulSet", "shared-redis"]["spec"]["replicas"] == at_work
    assert made["StatefulSet", "shared-milvus"]["spec"]["replicas"] == at_work
    assert made["StatefulSet", "shared"]["spec"]["replicas"] == replicas


def test_the_pods_are_told_where_things_are() -> None:
    assert config(SHARED).cache.ledger.address == "redis://shared-redis:6379/0"
    assert config(SHARED).cache.store.prefix == "demo/shared"
    assert config(SHARED).index.uri == "http://shared-milvus:19530"
    rented = config(RENTED).cache
    assert rented.ledger.address == "rediss://redis:6380/1"
    assert str(rented.ledger.password_file) == "/etc/diffcache-secrets/ledger-password"
    assert str(rented.ledger.ca_file) == "/etc/diffcache-secrets/ledger-ca"
    assert rented.store.prefix == "a/b/demo/rented"
    assert config(cache()).cache.ledger.address == ""


def test_secrets_are_named_and_not_read() -> None:
    spec = template(RENTED)["spec"]
    (projected,) = [volume["projected"] for volume in spec["volumes"] if volume["name"] == "secrets"]
    assert [(source["secret"]["name"], source["secret"]["items"]) for source in projected["sources"]] == [
        ("redis", [{"key": "password", "path": "ledger-password"}]),
        ("redis", [{"key": "ca.crt", "path": "ledger-ca"}]),
        ("s3", [{"key": "ca.crt", "path": "store-ca"}]),
    ]
    assert "/etc/diffcache-secrets" in [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]]
    assert "secrets" not in [volume["name"] for volume in template(SHARED)["spec"]["volumes"]]


def test_credentials_of_the_bucket_are_in_the_environment() -> None:
    given = {one["name"]: one for one in template(RENTED)["spec"]["containers"][0]["env"]}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert given[name]["valueFrom"]["secretKeyRef"] == {"name": "s3", "key": name}
    assert given["AWS_SESSION_TOKEN"] == {"name": "AWS_SESSION_TOKEN", "value": "mine"}  # the user's word is the last
    unnamed = changed(RENTED, serving={"pod": {}})
    token = next(one for one in template(unnamed)["spec"]["containers"][0]["env"] if one["name"] == "AWS_SESSION_TOKEN")
    assert token["valueFrom"]["secretKeyRef"]["optional"] is True
    assert "AWS_ACCESS_KEY_ID" not in {one["name"] for one in template(SHARED)["spec"]["containers"][0]["env"]}


def test_only_the_serving_container_sees_the_credentials() -> None:
    hub = changed(RENTED, model={"source": "org/model"})
    (init,) = template(hub)["spec"]["initContainers"]
    assert "AWS_SECRET_ACCESS_KEY" not in {one["name"] for one in init["env"]}
