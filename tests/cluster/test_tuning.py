"""A decision of the tuner arrives in the pods; without Prometheus it stands still and says so, and scaling goes on."""

from __future__ import annotations

import pytest

from tests.cluster import prometheus
from tests.cluster.kube import BIN, Kube, eventually, run
from tests.cluster.pods import draw, start_client
from tests.cluster.shared import shared_cache, start_s3
from tests.cluster.test_changes import value
from tests.cluster.test_scaling import replicas

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

TUNING = {"mode": "Auto", "capacity": {"min": "16Mi", "max": "32Mi"}}
"""The capacity begins above what is allowed: a decision that no busy machine changes."""
SCALING = {"mode": "Operator", "minReplicas": 1, "maxReplicas": 2, "targetBacklogSeconds": 60}


def test_a_decision_arrives_and_stands_still_without_prometheus(operator: Kube, namespace: Kube) -> None:
    start_s3(namespace)
    prometheus.start(namespace)
    namespace.apply(
        shared_cache(replicas=1, tuning=TUNING, autoscaling=SCALING, prometheus={"url": prometheus.url(namespace)})
    )
    start_client(namespace)
    namespace.wait_ready("emoji")

    draw(namespace, "red apple, noto style", "red apple, flat style")
    eventually(lambda: decided(namespace) == ["Shrunk"], 240, every=2, what="a decision")
    assert namespace.get("diffusioncache", "emoji")["spec"]["cache"]["capacity"] == "64Mi"
    assert "Shrunk" in namespace("get", "dcache", "emoji")
    told = run([str(BIN / "kubectl"), "diffcache", "tuning", "emoji", "-n", namespace.namespace])
    assert "Shrunk" in told
    assert "requests" in told
    namespace("annotate", "pod", "emoji-0", "test=now")  # else the kubelet would look in about a minute
    eventually(lambda: value(namespace, "diffcache_tuning_revision") == 1, 150, every=2, what="followed by the pod")
    assert value(namespace, "diffcache_capacity_bytes") == 32 * 2**20

    prometheus.kill(namespace)
    message = namespace.wait_reason("emoji", "PrometheusFailed", "TuningActive", within=240)
    assert prometheus.url(namespace) in message
    events = namespace.list("event", "", "--field-selector=reason=PrometheusFailed")
    assert len(events) == 1
    scaling = namespace.condition("emoji", "ScalingActive")
    assert scaling is not None
    assert (scaling["status"], scaling["reason"]) == ("True", "Following")
    namespace.patch("diffusioncache", "emoji", {"spec": {"autoscaling": {"minReplicas": 2}}})
    eventually(lambda: replicas(namespace) == 2, 60, what="scaling goes on")


def decided(inside: Kube) -> list[str]:
    """Reasons, newest first."""
    return [one["reason"] for one in inside.get("diffusioncache", "emoji")["status"]["tuning"].get("history", [])]
