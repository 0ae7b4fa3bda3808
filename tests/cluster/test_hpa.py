"""The real HorizontalPodAutoscaler on our scale subresource, as examples/autoscaling has it."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.cluster import prometheus
from tests.cluster.kube import JSON, ROOT, Kube, eventually
from tests.cluster.metricsapi.installed import metrics_api
from tests.cluster.pods import start_client
from tests.cluster.shared import SMALL, shared_cache, start_s3
from tests.cluster.test_scaling import load, replicas, uids

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

EXAMPLE = ROOT / "examples/autoscaling/hpa.yaml"


def test_an_hpa_scales_a_cache_by_its_backlog(operator: Kube, namespace: Kube) -> None:
    start_s3(namespace)
    prometheus.start(namespace)
    namespace.apply(shared_cache(replicas=1, serving=SMALL))
    start_client(namespace)
    namespace.wait_ready("emoji")
    first = uids(namespace)
    with metrics_api(namespace):
        # What it asks for has a value once the pod has drawn its first step, at its start.
        eventually(lambda: prometheus.query(namespace, 'diffcache:backlog_seconds:sum{cache="emoji"}'), 60)
        namespace.apply(quicker(yaml.safe_load(EXAMPLE.read_text())))
        eventually(lambda: condition(namespace, "ScalingActive")["status"] == "True", 60, what="a metric")
        with load(namespace, "BYPASS"):
            eventually(lambda: replicas(namespace) == 2, 180, every=2, what="a second pod")
            namespace.wait_ready("emoji")
        assert first < uids(namespace)
        assert writers(namespace) == ["kube-controller-manager"]

        prometheus.kill(namespace)
        eventually(lambda: condition(namespace, "ScalingActive")["status"] == "False", 60, what="no metric")
        assert replicas(namespace) == 2
        prometheus.start(namespace)
        eventually(lambda: replicas(namespace) == 1, 240, every=2, what="one pod at rest")
        eventually(lambda: uids(namespace) == first, 60, what="the pod that was there first")
        namespace("delete", "hpa", "emoji")


def quicker(example: JSON) -> JSON:
    """The same with room for two pods, and a test's patience."""
    spec = example["spec"]
    spec["maxReplicas"] = 2
    spec["metrics"][0]["external"]["target"]["averageValue"] = "2"
    spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] = 15
    return example


def condition(inside: Kube, kind: str) -> JSON:
    """Of the HorizontalPodAutoscaler."""
    found: list[JSON] = inside.get("hpa", "emoji")["status"]["conditions"]
    return {one["type"]: one for one in found}[kind]


def writers(inside: Kube) -> list[str]:
    """Managers of spec.serving.replicas."""
    shown = json.loads(inside("get", "diffusioncache", "emoji", "-o", "json", "--show-managed-fields"))
    return [
        entry["manager"]
        for entry in shown["metadata"]["managedFields"]
        if "f:replicas" in entry["fieldsV1"].get("f:spec", {}).get("f:serving", {})
    ]
