"""Whose the number of pods is, as an API server records it in managedFields."""

from __future__ import annotations

from typing import Any

import pytest

from diffcache_core.kubernetes.metadata import Metadata
from diffcache_operator.scaling.owner import other_scaler

REPLICAS: dict[str, Any] = {"f:spec": {"f:serving": {"f:replicas": {}}}}
APPLIED = {
    "manager": "kubectl-client-side-apply",
    "operation": "Update",
    "time": "2026-11-24T15:04:54Z",
    "fieldsV1": {"f:spec": {"f:model": {}, "f:serving": {".": {}}}},
}


def entry(manager: str, fields: dict[str, Any] = REPLICAS, subresource: str = "scale") -> dict[str, Any]:
    """As kube-apiserver 1.37 writes it: a scale subresource's entry has no time."""
    return {"manager": manager, "operation": "Update", "subresource": subresource, "fieldsV1": fields}


@pytest.mark.parametrize(
    ("entries", "other"),
    [
        ([], None),
        ([APPLIED | {"fieldsV1": REPLICAS}], None),
        ([APPLIED, entry("diffcache-autoscaler")], None),
        ([APPLIED, entry("kubectl")], None),
        ([entry("kubectl-scale"), APPLIED], None),
        ([APPLIED, entry("kube-controller-manager")], "kube-controller-manager"),
        ([APPLIED, entry("keda")], "keda"),
        ([APPLIED, entry("diffcache-operator", REPLICAS, "status")], None),
        ([APPLIED, entry("kube-controller-manager", {"f:spec": {"f:serving": {}}})], None),
        ([APPLIED, entry("kube-controller-manager", {"f:spec": []})], None),
    ],
)
def test_other_scaler(entries: list[dict[str, Any]], other: str | None) -> None:
    assert other_scaler(Metadata.model_validate({"name": "emoji", "managedFields": entries})) == other


def test_without_managed_fields() -> None:
    assert other_scaler(Metadata(name="emoji")) is None
