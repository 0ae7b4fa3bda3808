"""What keeps a cache from being served is said in its Ready condition, with the remedy; and it heals."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import pytest

from tests.cluster.kube import Kube, cache, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_image_pull_failed(operator: Kube, namespace: Kube) -> None:
    namespace.apply(cache(serving={"image": "docker.io/diffcache/NOTHING:1"}))
    message = namespace.wait_reason("emoji", "ImagePullFailed")
    assert "docker.io/diffcache/NOTHING:1" in message
    assert "spec.serving.image" in message
    namespace.patch("diffusioncache", "emoji", {"spec": {"serving": {"image": None}}})
    namespace.wait_ready("emoji")  # of an image that never ran nothing is left
    warnings = namespace.list("event", "", "--field-selector=type=Warning,involvedObject.name=emoji-0")
    assert not [event["message"] for event in warnings if "probe" in event["message"]]


def test_a_claim_that_was_deleted(operator: Kube, namespace: Kube) -> None:
    """It stays as long as its pod does, and whoever deleted it learns what goes with it."""
    namespace.apply(cache(serving={"image": "docker.io/diffcache/NOTHING:1"}))
    namespace.wait_reason("emoji", "ImagePullFailed")
    namespace("delete", "pvc", "data-emoji-0", "--wait=false")
    assert "the cache" in namespace.wait_reason("emoji", "ClaimDeleted", "Stalled")
    before = namespace.get("pvc", "data-emoji-0")["metadata"]["uid"]
    namespace("delete", "pod", "emoji-0", "--grace-period=1")
    eventually(lambda: "Stalled" not in conditions(namespace), 60, what="the new claim")
    assert namespace.get("pvc", "data-emoji-0")["metadata"]["uid"] != before


def conditions(inside: Kube) -> set[str]:
    return {one["type"] for one in inside.get("diffusioncache", "emoji")["status"]["conditions"]}


def test_model_load_failed_with_the_pods_own_reason(operator: Kube, namespace: Kube) -> None:
    namespace.apply(cache(model={"source": "bundled://nope"}))
    message = namespace.wait_reason("emoji", "ModelLoadFailed")
    assert "bundled://emoji" in message  # what there is instead
    namespace.wait_reason("emoji", "ModelLoadFailed", "ModelReady")
    assert message not in namespace.wait_reason("emoji", "ModelLoadFailed", "Stalled")  # it stands once
    namespace.patch("diffusioncache", "emoji", {"spec": {"model": {"source": "bundled://emoji"}}})
    namespace.wait_ready("emoji")


@pytest.fixture
def no_default_class(kube: Kube) -> Iterator[None]:
    """The default StorageClass is none for a while."""
    key = "storageclass.kubernetes.io/is-default-class"
    defaults = [
        c["metadata"]["name"] for c in kube.list("storageclass") if c["metadata"].get("annotations", {}).get(key)
    ]
    for name in defaults:
        kube("annotate", "storageclass", name, f"{key}-", "--overwrite")
    yield
    for name in defaults:
        kube("annotate", "storageclass", name, f"{key}=true", "--overwrite")


def test_volume_pending(operator: Kube, namespace: Kube, no_default_class: None) -> None:
    namespace.apply(cache())
    message = namespace.wait_reason("emoji", "VolumePending")
    for word in ("data-emoji-0", "no default", "storageClassName"):
        assert word in message


def test_a_storage_class_that_is_not_there(operator: Kube, namespace: Kube) -> None:
    namespace.apply(cache(cache={"store": {"volume": {"storageClassName": "missing"}}}))
    assert "StorageClass missing" in namespace.wait_reason("emoji", "VolumePending")


GPU = "diffcache.io/test-gpu"


@pytest.fixture
def gpu_node(kube: Kube) -> Iterator[str]:
    """A node whose status says that it has one GPU. The device itself is not there."""
    node = kube.list("node")[0]["metadata"]["name"]
    set_capacity(kube, node, "1")
    yield node
    set_capacity(kube, node, "0")


def set_capacity(kube: Kube, node: str, count: str) -> None:
    kube.patch("node", node, {"status": {"capacity": {GPU: count}}}, "--subresource=status")
    eventually(lambda: kube.get("node", node)["status"]["allocatable"][GPU] == count, what="the kubelet agrees")


def test_insufficient_gpu(operator: Kube, namespace: Kube, kube: Kube, gpu_node: str) -> None:
    gpu = {"count": 1, "resourceName": GPU}
    namespace.apply(cache(serving={"gpu": gpu, "image": "docker.io/diffcache/NOTHING:1"}))
    namespace.wait_reason("emoji", "ImagePullFailed")  # so it was placed
    spec = namespace.get("pod", "emoji-0")["spec"]
    assert spec["containers"][0]["resources"]["limits"] == {GPU: "1"}
    assert {"key": GPU, "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]
    set_capacity(kube, gpu_node, "0")
    namespace("delete", "pod", "emoji-0")
    message = namespace.wait_reason("emoji", "InsufficientGPU")
    assert GPU in message
    set_capacity(kube, gpu_node, "1")
    namespace.wait_reason("emoji", "ImagePullFailed")


def test_cuda_is_mandatory_where_it_was_asked_for(operator: Kube, namespace: Kube, gpu_node: str) -> None:
    """This node has no CUDA, whatever its status says: the pod ends with the reason rather than use the CPU."""
    namespace.apply(cache(serving={"gpu": {"count": 1, "resourceName": GPU}}))
    assert "CUDA" in namespace.wait_reason("emoji", "CudaUnavailable")


def test_what_the_api_server_refuses_stalls(operator: Kube, namespace: Kube) -> None:
    """Well formed and still impossible: the server's words are passed on."""
    namespace.apply(cache(serving={"pod": {"nodeSelector": {"not a label": "x"}}}))
    namespace.wait_reason("emoji", "Rejected", "Stalled")
    message = namespace.wait_reason("emoji", "Rejected")
    assert "nodeSelector" in message or "not a label" in message
    namespace.patch("diffusioncache", "emoji", {"spec": {"serving": {"replicas": 0, "pod": {"nodeSelector": None}}}})
    namespace.wait_reason("emoji", "ScaledToZero")


def test_a_pod_that_a_quota_forbids(operator: Kube, namespace: Kube) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"pods": "0"}},
    }
    namespace.apply(quota)
    eventually(lambda: namespace.get("resourcequota", "none")["status"].get("hard"))
    namespace.apply(cache())
    assert "quota" in namespace.wait_reason("emoji", "PodRefused")


@pytest.fixture
def old_crd(kube: Kube) -> Iterator[None]:
    """A CRD from before `cache.levels`; the present one comes back afterwards."""
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/cache/properties/levels"
    patch = json.dumps([{"op": "remove", "path": path}])
    live = kube.get("crd", "diffusioncaches.diffcache.io")
    metadata = {key: live["metadata"][key] for key in ("name", "labels", "annotations")}
    present = {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": metadata, "spec": live["spec"]}
    kube("patch", "crd", "diffusioncaches.diffcache.io", "--type=json", "-p", patch)
    yield
    # In Helm's name, or its next upgrade would meet a conflict with kubectl.
    flags = ("--server-side", "--force-conflicts", "--field-manager=helm")
    kube("apply", *flags, "-f", "-", text=json.dumps(present))


def test_crd_outdated(operator: Kube, namespace: Kube, old_crd: None) -> None:
    namespace.apply(cache(serving={"replicas": 0}))

    looks = itertools.count()

    def told() -> str:
        condition = namespace.condition("emoji", "CRDOutdated")
        namespace.patch("diffusioncache", "emoji", {"metadata": {"labels": {"look": str(next(looks))}}})
        return condition["message"] if condition else ""

    assert "spec.cache.levels" in eventually(told, 100, every=5)  # an answer about the CRD holds for a minute
