"""The children: restricted pods, a template that does not move, and what each field of the spec does to them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from diffcache_core.resource.rules import Change, fields_by_change
from diffcache_core.resource.spec import DiffusionCache, DiffusionCacheSpec
from diffcache_core.resource.status import DiffusionCacheStatus
from diffcache_core.serving_config import ServingConfig
from diffcache_operator.desired.children import child_references, desired_children
from diffcache_operator.desired.config import restart_digest
from diffcache_operator.desired.placement import PodDefaults
from diffcache_operator.images import images_in_use
from diffcache_operator.metadata import JSON
from diffcache_operator.observed import Observed
from tests.operator.resources import IMAGES, cache
from tests.operator.shared import RENTED, SHARED

GOLDEN = Path(__file__).parents[1] / "golden"

LITE = cache()
FULL = cache(
    "full",
    model={
        "source": "org/model",
        "revision": "v2",
        "tokenSecretRef": {"name": "hub", "key": "token"},
        "caSecretRef": {"name": "hub", "key": "ca.crt"},
        "scheduler": "Euler",
    },
    serving={
        "image": "registry/serving:9",
        "gpu": {"count": 1, "resourceName": "nvidia.com/mig-1g.10gb"},
        "resources": {"requests": {"cpu": "2", "memory": "8Gi"}, "limits": {"memory": "8Gi"}},
        "pod": {
            "nodeSelector": {"gpu": "a100"},
            "tolerations": [{"key": "batch", "effect": "NoSchedule"}],
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
                        ]
                    }
                }
            },
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
            "runtimeClassName": "nvidia",
            "priorityClassName": "high",
            "imagePullSecrets": [{"name": "private"}],
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one"}],
            "env": [
                {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
                {"name": "LD_LIBRARY_PATH", "value": "/mine"},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ],
            "labels": {"team": "art"},
            "annotations": {"sidecar.istio.io/inject": "false"},
        },
    },
    index={
        "type": "External",
        "external": {
            "uri": "https://milvus:19530",
            "tokenSecretRef": {"name": "milvus", "key": "token"},
            "caSecretRef": {"name": "milvus", "key": "ca.crt"},
            "database": "pictures",
        },
    },
)
STANDALONE = cache("alone", index={"type": "Standalone", "standalone": {"volume": {"storageClassName": "fast"}}})
CLAIM = cache("claim", model={"source": "pvc://models/sd/1.5"})
CHART = PodDefaults(pull_secrets=("chart-secret",))
ALL = [LITE, FULL, STANDALONE, CLAIM, SHARED, RENTED]


def render(resource: DiffusionCache, defaults: PodDefaults = CHART) -> list[JSON]:
    images = images_in_use(resource, DiffusionCacheStatus(), Observed({}), IMAGES)
    return desired_children(resource, images, defaults)


def stateful_sets(resource: DiffusionCache) -> list[JSON]:
    return [child for child in render(resource) if child["kind"] == "StatefulSet"]


def template(resource: DiffusionCache) -> JSON:
    return stateful_sets(resource)[-1]["spec"]["template"]


def container(resource: DiffusionCache) -> JSON:
    return template(resource)["spec"]["containers"][0]


def environment(resource: DiffusionCache) -> dict[str, Any]:
    return {env["name"]: env.get("value") for env in container(resource)["env"]}


class Readable(yaml.SafeDumper):
    """A config line by line: a new field of it is one line of a difference."""


def represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Readable.add_representer(str, represent)


@pytest.mark.parametrize("resource", ALL, ids=lambda r: r.metadata.name)
def test_what_is_looked_for_is_what_is_made(resource: DiffusionCache) -> None:
    made = [(one["apiVersion"], one["kind"], one["metadata"]["name"]) for one in render(resource)]
    assert child_references(resource) == made


@pytest.mark.parametrize("resource", ALL, ids=lambda r: r.metadata.name)
def test_children_are_what_the_golden_file_says(resource: DiffusionCache) -> None:
    """A difference in a pod template restarts the pods of all caches when the operator is upgraded.

    Whoever means it writes the file anew (`DIFFCACHE_WRITE_GOLDEN=1`) and says so in the release notes.
    """
    path = GOLDEN / f"{resource.metadata.name}.yaml"
    text = yaml.dump_all(json.loads(json.dumps(render(resource))), Dumper=Readable, sort_keys=False, width=120)
    if os.environ.get("DIFFCACHE_WRITE_GOLDEN"):
        path.write_text(text)
    assert path.read_text() == text


@pytest.mark.parametrize("resource", ALL, ids=lambda r: r.metadata.name)
def test_every_pod_is_restricted(resource: DiffusionCache) -> None:
    """The rules of the Pod Security Standard `restricted`, and a read-only root besides."""
    for one in stateful_sets(resource):
        spec = one["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for c in [*spec["containers"], *spec.get("initContainers", [])]:
            assert c["securityContext"]["allowPrivilegeEscalation"] is False
            assert c["securityContext"]["readOnlyRootFilesystem"] is True
            assert c["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            named = [env["name"] for env in c.get("env", [])]
            assert len(named) == len(set(named))
        kinds = {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "projected"}


@pytest.mark.parametrize("resource", ALL, ids=lambda r: r.metadata.name)
def test_everything_is_owned_and_named_within_the_limits(resource: DiffusionCache) -> None:
    long = resource.model_copy(update={"metadata": resource.metadata.model_copy(update={"name": "a" * 40})})
    for child in render(long):
        assert child["metadata"]["ownerReferences"][0]["controller"] is True
        assert len(child["metadata"]["name"]) <= 52  # a StatefulSet's pods get a label with a hash of eleven behind it
        assert child["metadata"]["labels"]["diffcache.io/cache"] == "a" * 40


def test_no_version_reaches_a_pod_template() -> None:
    assert "version" not in json.dumps(template(FULL)["metadata"]["labels"])


def test_the_config_map_is_what_the_process_reads() -> None:
    config_map = render(FULL)[1]
    config = ServingConfig.model_validate_json(config_map["data"]["serving.json"])
    assert config.require_cuda
    assert (config.listen.host, config.listen.admin_host, config.listen.metrics_host) == (
        "::",
        "127.0.0.1",
        "::",
    )
    assert str(config.index.token_file) == "/etc/diffcache-secrets/index-token"
    assert ServingConfig.model_validate_json(render(STANDALONE)[1]["data"]["serving.json"]).index.uri == (
        "http://alone-milvus:19530"
    )


def test_gpus_are_asked_for_and_tolerated() -> None:
    resources = container(FULL)["resources"]
    assert resources["limits"] == {"memory": "8Gi", "nvidia.com/mig-1g.10gb": "1"}
    assert resources["claims"] == [{"name": "gpu"}]
    tolerated = {(t["key"], t["operator"]) for t in template(FULL)["spec"]["tolerations"]}
    assert tolerated == {("batch", "Equal"), ("nvidia.com/mig-1g.10gb", "Exists"), ("nvidia.com/gpu", "Exists")}
    assert environment(FULL)["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert environment(FULL)["LD_LIBRARY_PATH"] == "/mine"  # the user's word is the last


def test_a_cpu_pod_gets_no_gpu_by_accident() -> None:
    assert environment(LITE)["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert "resources" in container(LITE)
    assert container(LITE)["resources"] == {"requests": {"memory": "1Gi"}}


def test_only_the_init_container_sees_the_token_of_the_hub() -> None:
    init = template(FULL)["spec"]["initContainers"][0]
    assert "HF_TOKEN" in {env["name"] for env in init["env"]}
    assert "HF_TOKEN" not in environment(FULL)
    assert init["resources"] == {"requests": {"cpu": "2", "memory": "8Gi"}, "limits": {"memory": "8Gi"}}  # no GPU
    assert "initContainers" not in template(LITE)["spec"]


def test_a_claim_with_a_model_is_mounted_read_only() -> None:
    volumes = {volume["name"]: volume for volume in template(CLAIM)["spec"]["volumes"]}
    assert volumes["model"]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}


def test_pull_secrets_of_chart_and_resource_belong_to_the_account() -> None:
    """And so another mirror in the chart's values restarts no pod; another one in the resource does."""
    account = render(FULL)[0]
    assert account["imagePullSecrets"] == [{"name": "private"}, {"name": "chart-secret"}]
    assert all("imagePullSecrets" not in one["spec"]["template"]["spec"] for one in stateful_sets(FULL))
    assert all(one["spec"]["template"]["spec"]["serviceAccountName"] == "alone" for one in stateful_sets(STANDALONE))
    other = with_value(FULL, ("serving", "pod", "image_pull_secrets"), [{"name": "another"}])
    assert template(other) != template(FULL)


def test_without_a_uid_nothing_has_an_owner() -> None:
    resource = LITE.model_copy(update={"metadata": LITE.metadata.model_copy(update={"uid": ""})})
    assert all("ownerReferences" not in child["metadata"] for child in render(resource))


SAMPLES: dict[str, Any] = {
    "model.source": "org/other",
    "model.revision": "v3",
    "model.token_secret_ref": {"name": "a", "key": "b"},
    "model.ca_secret_ref": {"name": "x", "key": "y"},
    "model.scheduler": "DPM++2M",
    "model.dtype": "Float32",
    "model.steps": 7,
    "model.guidance": "2.5",
    "model.width": 32,
    "model.height": 32,
    "model.max_pixels": 500000,
    "serving.replicas": 0,
    "serving.image": "other:1",
    "serving.gpu.count": 2,
    "serving.gpu.resource_name": "amd.com/gpu",
    "serving.resources": {"limits": {"cpu": "1"}},
    "serving.batch.max_size": 3,
    "serving.queue.max_steps": 77,
    "serving.service_account.annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/other"},
    "serving.pod": {"labels": {"x": "y"}},
    "cache.capacity": "65Mi",
    "cache.state": "Trajectory",
    "cache.levels": [],
    "cache.scope": "Shared",
    "cache.space_grace_seconds": 5,
    "cache.store.s3.bucket": "others",
    "cache.store.s3.prefix": "c",
    "cache.store.s3.endpoint": "https://other:1",
    "cache.store.s3.ca_secret_ref": {"name": "x", "key": "y"},
    "cache.store.s3.region": "eu-central-1",
    "cache.store.s3.credentials_secret_ref": {"name": "x"},
    "cache.ledger.external.address": "rediss://other:1",
    "cache.ledger.external.password_secret_ref": {"name": "x", "key": "y"},
    "cache.ledger.external.ca_secret_ref": {"name": "x", "key": "y"},
    "prometheus.url": "http://other:1",
    "prometheus.headers": [{"name": "X-Scope-OrgID", "value": "pictures"}],
    "tuning.mode": "Recommend",
    "tuning.quality.target_percent": 90,
    "tuning.quality.shadow_percent": 3,
    "tuning.quality.scorer": "file:///opt/clip",
    "tuning.latency.p95_milliseconds": 1,
    "tuning.capacity.min": "33Mi",
    "tuning.capacity.max": "2Gi",
    "tuning.capacity.min_gain": "0.5",
    "tuning.min_similarity": "0.9",
    "autoscaling.mode": "Disabled",
    "autoscaling.min_replicas": 2,
    "autoscaling.max_replicas": 5,
    "autoscaling.target_backlog_seconds": 11,
    "autoscaling.scale_down_stabilization_seconds": 0,
    "index.external.uri": "https://other:1",
    "index.external.database": "others",
    "index.external.token_secret_ref": {"name": "x", "key": "y"},
    "index.external.ca_secret_ref": {"name": "x", "key": "y"},
    "reclaim_policy": "Retain",
}


def with_value(resource: DiffusionCache, path: tuple[str, ...], value: Any) -> DiffusionCache:
    document = resource.model_dump(mode="json", by_alias=True, exclude_none=True)
    block = document["spec"]
    names = [DiffusionCacheSpec.model_config["alias_generator"](part) for part in path]  # type: ignore[operator, misc]
    for name in names[:-1]:
        block = block[name]
    block[names[-1]] = value
    return DiffusionCache.model_validate(document)


@pytest.mark.parametrize(
    ("path", "change"), [(p, c) for p, c in fields_by_change(DiffusionCacheSpec) if ".".join(p) in SAMPLES]
)
def test_the_class_of_a_change_is_what_happens(path: tuple[str, ...], change: Change) -> None:
    """Hot leaves the pod template as it is, Roll and NewSpace do not."""
    before = RENTED if path[0] in ("prometheus", "tuning", "autoscaling") or {"s3", "ledger"} & {*path} else FULL
    changed = with_value(before, path, SAMPLES[".".join(path)])
    assert changed != before
    if change is Change.HOT:
        assert template(changed) == template(before)
    elif change is not Change.IMMUTABLE:
        assert template(changed) != template(before)


def test_every_field_has_a_sample_or_belongs_to_another_component() -> None:
    known = {".".join(path) for path, _ in fields_by_change(DiffusionCacheSpec)}
    beside = ("index.standalone", "cache.ledger.provisioned", "cache.store.volume")
    others = {name for name in known - set(SAMPLES) if not name.startswith(beside)}
    assert others == {"index.type", "cache.ledger.type", "cache.store.type"}


def test_the_milvus_of_a_cache_does_not_restart_its_pods() -> None:
    other = cache(
        "alone",
        index={"type": "Standalone", "standalone": {"image": "milvus:2", "volume": {"storageClassName": "fast"}}},
    )
    assert template(other) == template(STANDALONE)
    assert stateful_sets(other)[0]["spec"]["template"] != {}


@given(st.sampled_from(["DDIM", "Euler"]), st.sampled_from(["Auto", "Float32"]), st.integers(1, 50))
def test_a_default_that_is_spelt_out_restarts_nothing(scheduler: str, dtype: str, steps: int) -> None:
    short = {"source": "bundled://emoji"}
    spelt = short | {"scheduler": scheduler, "dtype": dtype, "steps": steps}
    same = scheduler == "DDIM" and dtype == "Auto"
    assert (restart_digest(cache(model=short)) == restart_digest(cache(model=spelt))) is same


@pytest.mark.parametrize(
    ("resources", "requests"),
    [
        ({}, {"memory": "1Gi"}),
        ({"requests": {"cpu": "2"}}, {"cpu": "2", "memory": "1Gi"}),
        ({"requests": {"memory": "3Gi"}}, {"memory": "3Gi"}),
        ({"limits": {"memory": "2Gi"}}, None),  # the API server makes it the request
    ],
)
def test_the_bundled_model_asks_for_the_memory_that_it_takes(resources: JSON, requests: JSON | None) -> None:
    assert container(cache(serving={"resources": resources}))["resources"].get("requests") == requests
    other = cache(model={"source": "pvc://models/mine"}, serving={"resources": resources})
    assert container(other)["resources"] == resources
