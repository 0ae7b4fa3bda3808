"""The program that `helm test` runs; tests/cluster runs it in a cluster."""

from __future__ import annotations

import runpy
from typing import Any

import pytest

from diffcache_core.resource.spec import DiffusionCache, IndexType
from tests.charts.helm import CHART


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    told = {
        "NAMESPACE": "team-a",
        "POD_NAME": "diffcache-test",
        "POD_UID": "1-2",
        "TIMEOUT_SECONDS": "240",
        "SERVING_RESOURCES": '{"limits":{"cpu":0.5,"memory":"2Gi"},"requests":{"cpu":1}}',
        "SERVING_POD": '{"nodeSelector":{"pool":"a"},"tolerations":[{"key":"dedicated","operator":"Exists"}]}',
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    return runpy.run_path(str(CHART / "files/test.py"))


def test_its_resource_is_valid_and_small(program: dict[str, Any]) -> None:
    manifest = program["CACHE"]
    manifest["metadata"]["name"] = manifest["metadata"].pop("generateName") + "x7k2p"  # what the API server does
    resource = DiffusionCache.model_validate(manifest)
    assert resource.spec.index.type is IndexType.LITE
    assert resource.spec.cache.store.volume.size == "1Gi"
    assert resource.spec.serving.resources.model_dump() == {
        "limits": {"cpu": "0.5", "memory": "2Gi"},  # an unquoted decimal is no amount to the API server
        "requests": {"cpu": 1},
    }
    assert resource.spec.serving.pod.node_selector == {"pool": "a"}
    assert [toleration.key for toleration in resource.spec.serving.pod.tolerations or []] == ["dedicated"]


@pytest.mark.parametrize(
    ("status", "ready", "said"),
    [
        ({"observedGeneration": -1}, False, "no operator has looked"),
        ({"observedGeneration": 1}, False, "no condition Ready"),
        ({"observedGeneration": 1, "conditions": ["False"]}, False, "Ready is False: ModelLoading: wait"),
        ({"observedGeneration": 1, "conditions": ["True"]}, True, "Ready is True"),
    ],
)
def test_it_says_what_it_waits_for(program: dict[str, Any], status: dict[str, Any], ready: bool, said: str) -> None:
    conditions = [
        {"type": "Ready", "status": word, "reason": "ModelLoading", "message": "wait"}
        for word in status.get("conditions", [])
    ]
    answer, message = program["readiness"](
        {"metadata": {"generation": 1}, "status": status | {"conditions": conditions}}
    )
    assert answer is ready
    assert said in message
