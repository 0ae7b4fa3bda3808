"""The operator is killed at every step, and the API server is busy, contradicts, or goes away: the end is the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cluster.apiproxy import Answer, ApiProxy, Request, api_proxy
from tests.cluster.kube import JSON, Kube, cache, eventually
from tests.cluster.operatorprocess import OperatorProcess, operator_process

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

CHILDREN = ("serviceaccount", "configmap", "service", "statefulset", "persistentvolumeclaim")
SELECTOR = "diffcache.io/cache=emoji"
RESOURCE = cache(serving={"image": "docker.io/diffcache/NOTHING:1"})
"""Its pod is made, its image cannot be called so: every kind of child, and an end that needs no model."""

_OF_THIS_RUN = {
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "generation",
    "annotations",
    "finalizers",
}


@pytest.fixture
def kubeconfig(kube: Kube) -> Path:
    return Path(os.environ["KUBECONFIG"])


def end_state(inside: Kube) -> JSON:
    """Everything that the operator decides, without what differs from one run to the next."""
    inside.wait_reason("emoji", "ImagePullFailed", within=90)
    eventually(lambda: owned(inside), 30, what="the volume owned")
    state: JSON = {}
    for kind in CHILDREN:
        for child in inside.list(kind, SELECTOR):
            metadata = {k: v for k, v in child["metadata"].items() if k not in _OF_THIS_RUN}
            metadata.pop("namespace")
            for owner in metadata.get("ownerReferences", []):
                owner.pop("uid")
            spec = {
                k: v for k, v in child.get("spec", {}).items() if k not in ("clusterIP", "clusterIPs", "volumeName")
            }
            state[f"{kind}/{metadata['name']}"] = {"metadata": metadata, "spec": spec, "data": child.get("data")}
    status = inside.get("diffusioncache", "emoji")["status"]
    state["conditions"] = sorted((c["type"], c["status"], c["reason"]) for c in status["conditions"])
    state["image"] = status["serving"]["image"]
    return state


def owned(inside: Kube) -> bool:
    claims = inside.list("persistentvolumeclaim", SELECTOR)
    return bool(claims) and all(claim["metadata"].get("ownerReferences") for claim in claims)


def clear(inside: Kube) -> None:
    inside("delete", "diffusioncache", "emoji", "--ignore-not-found")
    eventually(lambda: not inside.list(",".join([*CHILDREN, "pod"]), SELECTOR), 60, what="all children gone")


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_write_of_a_first_reconcile(
    when: str, kubeconfig: Path, no_operator: Kube, namespace: Kube, tmp_path: Path
) -> None:
    """`before`: the write does not reach the server. `after`: it does, and the operator never hears of it."""
    with api_proxy(kubeconfig) as proxy:
        conf = proxy.kubeconfig(tmp_path)
        namespace.apply(RESOURCE)
        with operator_process(conf, tmp_path, namespace.namespace):
            wanted = end_state(namespace)
        writes = len(proxy.writes())
        assert writes >= len(CHILDREN) + 2  # two Services, and the status
        step = 0
        while True:
            step += 1
            clear(namespace)
            namespace.apply(RESOURCE)
            proxy.requests.clear()
            with operator_process(conf, tmp_path, namespace.namespace) as operator:
                reached = kill_at(step, when, proxy, operator, namespace)
            proxy.before, proxy.after = lambda request: None, lambda request: None
            if not reached:
                break
            with operator_process(conf, tmp_path, namespace.namespace):
                assert end_state(namespace) == wanted, f"killed {when} write {step}"
        print(f"killed {when} each of {step - 1} writes")
        assert step > len(CHILDREN)


def kill_at(step: int, when: str, proxy: ApiProxy, operator: OperatorProcess, inside: Kube) -> bool:
    """Whether the operator made that many writes before it was done."""
    seen = 0

    def look(request: Request) -> None:
        nonlocal seen
        if request.writes:
            seen += 1
            if seen == step:
                operator.process.kill()

    if when == "before":

        def before(request: Request) -> Answer | None:
            look(request)
            return Answer(503, "ServiceUnavailable") if operator_is_dead() and request.writes else None

        proxy.before = before
    else:
        proxy.after = look

    def operator_is_dead() -> bool:
        return seen >= step

    def over() -> str:
        if operator.process.poll() is not None:
            return "killed"
        condition = inside.condition("emoji", "Ready")
        return "done" if condition and condition["reason"] == "ImagePullFailed" and owned(inside) else ""

    return eventually(over, 90, what=f"killed at write {step}, or done") == "killed"


def test_a_busy_and_contradicting_server(kubeconfig: Path, no_operator: Kube, namespace: Kube, tmp_path: Path) -> None:
    """Every write is refused twice, by turns with 429, 409 and 500; then it passes."""
    refused: dict[tuple[str, str], int] = {}
    answers = [Answer(429, "TooManyRequests"), Answer(409, "Conflict"), Answer(500, "InternalError")]

    def before(request: Request) -> Answer | None:
        key = (request.method, request.path)
        if request.writes and refused.get(key, 0) < 2:
            refused[key] = refused.get(key, 0) + 1
            return answers[sum(refused.values()) % 3]
        return None

    with api_proxy(kubeconfig) as proxy:
        proxy.before = before
        namespace.apply(RESOURCE)
        with operator_process(proxy.kubeconfig(tmp_path), tmp_path, namespace.namespace) as operator:
            namespace.wait_reason("emoji", "ImagePullFailed", within=240)
            assert "Traceback" not in operator.text()
        assert sum(refused.values()) >= 10


def test_watches_that_are_cut_and_a_silent_while(
    kubeconfig: Path, no_operator: Kube, namespace: Kube, tmp_path: Path
) -> None:
    with (
        api_proxy(kubeconfig) as proxy,
        operator_process(proxy.kubeconfig(tmp_path), tmp_path, namespace.namespace),
    ):
        for turn in range(3):
            namespace.apply(cache(f"turn-{turn}", serving={"replicas": 0}))
            namespace.wait_reason(f"turn-{turn}", "ScaledToZero", within=90)
            assert proxy.cut_watches() >= 7
            namespace.apply(cache(f"after-{turn}", serving={"replicas": 0}))
            namespace.wait_reason(f"after-{turn}", "ScaledToZero", within=90)
        namespace("delete", "service", "turn-0")
        eventually(lambda: namespace.exists("service", "turn-0"), 30)


def test_the_second_reconcile_writes_nothing(
    kubeconfig: Path, no_operator: Kube, namespace: Kube, tmp_path: Path
) -> None:
    """A new operator that finds everything as it should be leaves it at that."""
    with api_proxy(kubeconfig) as proxy:
        conf = proxy.kubeconfig(tmp_path)
        namespace.apply(cache("still", serving={"replicas": 0}))
        with operator_process(conf, tmp_path, namespace.namespace):
            namespace.wait_reason("still", "ScaledToZero")
        proxy.requests.clear()
        with operator_process(conf, tmp_path, namespace.namespace):
            eventually(lambda: [r for r in proxy.requests if r.path.endswith("/configmaps/still-config")], 60)
            namespace.apply(cache("next", serving={"replicas": 0}))  # and so the first one is through
            namespace.wait_reason("next", "ScaledToZero")
        assert [r for r in proxy.writes() if "still" in r.path] == []
