"""Whose the number of pods is, as an API server records it in managedFields."""

from __future__ import annotations

from typing import Any

import pytest

from diffcache_operator.scaling.owner import other_scaler

REPLICAS: dict[str, Any] = {"f:spec": {"f:serving": {"f:replicas": {}}}}
MODE: dict[str, Any] = {"f:spec": {"f:autoscaling": {".": {}, "f:mode": {}}}}


def entry(manager: str, fields: dict[str, Any], minute: int, subresource: str = "") -> dict[str, Any]:
    one = {"manager": manager, "operation": "Update", "time": f"2026-11-24T10:{minute:02}:00Z", "fieldsV1": fields}
    return one | ({"subresource": subresource} if subresource else {})


HPA = "kube-controller-manager"


@pytest.mark.parametrize(
    ("entries", "other"),
    [
        ([], None),
        ([entry("kubectl-client-side-apply", REPLICAS | MODE, 1)], None),
        ([entry("kubectl", MODE, 1), entry("diffcache-autoscaler", REPLICAS, 2, "scale")], None),
        # A person scales; the loop goes on from there.
        ([entry("kubectl", MODE, 1), entry("kubectl-scale", REPLICAS, 2, "scale")], None),
        ([entry("kubectl", MODE, 1), entry(HPA, REPLICAS, 2, "scale")], HPA),
        # From before the loop was told to scale: that is its to take over.
        ([entry("kubectl", MODE, 3), entry(HPA, REPLICAS, 2, "scale")], None),
        # The status subresource is nobody's claim to the replicas.
        ([entry("kubectl", MODE, 1), entry("diffcache-operator", {"f:status": {}}, 2, "status")], None),
        ([entry("kubectl", MODE, 1), entry(HPA, {"f:spec": {"f:serving": {}}}, 2, "scale")], None),
        # The mode is the schema's default and nobody's: whoever scales was there first.
        ([entry(HPA, REPLICAS, 2, "scale")], HPA),
    ],
)
def test_other_scaler(entries: list[dict[str, Any]], other: str | None) -> None:
    assert other_scaler({"metadata": {"managedFields": entries}}) == other


def test_without_managed_fields() -> None:
    assert other_scaler({"metadata": {}}) is None
