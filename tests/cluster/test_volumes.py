"""Volumes that grow: what the API server lets a claim become. The node's driver expands nothing, so a hand does."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cluster.kube import Kube, cache

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

CLAIM = "data-emoji-0"


@pytest.fixture
def expandable(kube: Kube) -> Iterator[None]:
    """The StorageClass lets claims grow."""
    kube.patch("storageclass", "standard", {"allowVolumeExpansion": True})
    yield
    kube.patch("storageclass", "standard", {"allowVolumeExpansion": None})


def resize(inside: Kube, size: str) -> None:
    inside.patch("diffusioncache", "emoji", {"spec": {"cache": {"store": {"volume": {"size": size}}}}})


def asked(inside: Kube) -> str:
    return str(inside.get("pvc", CLAIM)["spec"]["resources"]["requests"]["storage"])


def state(inside: Kube) -> tuple[str, str, int]:
    """What a pod that is replaced, or a workload that is made anew, would change."""
    pod, workload = inside.get("pod", "emoji-0"), inside.get("statefulset", "emoji")
    return pod["metadata"]["uid"], workload["metadata"]["uid"], workload["metadata"]["generation"]


def test_a_volume_grows_under_its_pod(operator: Kube, namespace: Kube, expandable: None) -> None:
    namespace.apply(cache())
    namespace.wait_ready("emoji")
    before = state(namespace)
    resize(namespace, "30Gi")  # the node's volumes have 20Gi
    message = namespace.wait_reason("emoji", "VolumeExpanding", "Reconciling")
    assert f"the volume {CLAIM} grows to 30Gi" in message
    assert asked(namespace) == "30Gi"
    namespace.wait_ready("emoji", within=0)
    namespace(
        "patch",
        "pvc",
        CLAIM,
        "--subresource=status",
        "--type=merge",
        "-p",
        json.dumps({"status": {"capacity": {"storage": "30Gi"}}}),
    )
    namespace.wait_reason("emoji", "Serving")
    assert state(namespace) == before
    assert "cannot become smaller" in namespace.refused(
        "patch",
        "diffusioncache",
        "emoji",
        "--type=merge",
        "-p",
        '{"spec": {"cache": {"store": {"volume": {"size": "20Gi"}}}}}',
    )


def test_a_class_that_cannot_expand_is_named(operator: Kube, namespace: Kube) -> None:
    namespace.apply(cache())
    namespace.wait_ready("emoji")
    before = state(namespace)
    resize(namespace, "30Gi")
    message = namespace.wait_reason("emoji", "VolumeNotExpanded", "Stalled")
    assert "the storageclass that provisions the pvc must support resize" in message
    assert "allowVolumeExpansion: true in StorageClass standard" in message
    assert asked(namespace) == "10Gi"
    namespace.wait_ready("emoji", within=0)
    assert state(namespace) == before
