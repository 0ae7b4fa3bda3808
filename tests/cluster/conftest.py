"""The cluster that the tests run on, and what they need in it.

`make test-cluster` starts a node and runs them inside of its network. On another throw-away cluster:
`pytest -m "cluster and not node" tests/cluster --kubeconfig FILE`, after `make images` and loading the images there.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.kube import BIN, ROOT, Kube, eventually, run

THROW_AWAY = re.compile(r"^(kind-.*|k3d-.*|minikube|diffcache-test)$")
"""Contexts that look like a cluster nobody would miss. The tests delete namespaces, roles and CRDs."""

SYSTEM = "diffcache-system"
RELEASE = "diffcache"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kubeconfig", default=os.environ.get("KUBECONFIG", ""), help="of a throw-away cluster")


@pytest.fixture(scope="session")
def kube(pytestconfig: pytest.Config) -> Iterator[Kube]:
    kubeconfig = pytestconfig.getoption("--kubeconfig")
    if not kubeconfig:
        pytest.fail("these tests need a cluster: run `make test-cluster`, or give --kubeconfig of a throw-away one")
    os.environ["KUBECONFIG"] = str(Path(kubeconfig).absolute())
    os.environ["PATH"] = f"{BIN}:{os.environ['PATH']}"
    context = run([str(BIN / "kubectl"), "config", "current-context"]).strip()
    if not THROW_AWAY.match(context):
        pytest.fail(f"context {context!r} does not look like a throw-away cluster (kind-*, k3d-*, minikube)")
    yield Kube()
    # Every namespace of a test is gone now, or on its way: nothing in it was stuck.
    eventually(lambda: not mine(Kube()), 180, every=2, what="the tests' namespaces gone")


@pytest.fixture(scope="session")
def helm() -> str:
    """Helm 4."""
    run(["tools/install-helm.sh"])
    return str(ROOT / "build/helm/helm4")


@pytest.fixture(scope="session")
def operator(kube: Kube, helm: str) -> Iterator[Kube]:
    """The chart, installed as the README says. Yields kubectl in the operator's namespace."""
    run([helm, "upgrade", "--install", RELEASE, "charts/diffcache", "-n", SYSTEM, "--create-namespace", "--wait"])
    system = kube.within(SYSTEM)
    yield system
    print(system("logs", f"deployment/{deployment(system)}", "--tail=60"))


def deployment(system: Kube) -> str:
    """The operator's Deployment."""
    return str(system.list("deployment", "app.kubernetes.io/name=diffcache")[0]["metadata"]["name"])


@pytest.fixture
def namespace(kube: Kube) -> Iterator[Kube]:
    """kubectl in a namespace of its own, which goes afterwards."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    _NAMESPACES.add(name)
    kube("create", "namespace", name)
    inside = kube.within(name)
    eventually(lambda: inside.exists("serviceaccount", "default"))
    yield inside
    kube("delete", "namespace", name, "--wait=false")
    inside("delete", "pod", "--all", "--grace-period=1", "--wait=false")  # nobody needs what they would still save


def mine(kube: Kube) -> list[str]:
    return [n["metadata"]["name"] for n in kube.list("namespace") if n["metadata"]["name"] in _NAMESPACES]


_NAMESPACES: set[str] = set()


@pytest.fixture
def no_operator(operator: Kube) -> Iterator[Kube]:
    """The operator is away; it comes back afterwards. Yields kubectl in its namespace."""
    name = deployment(operator)
    operator("scale", "deployment", name, "--replicas=0")
    eventually(lambda: not operator.list("pod", "app.kubernetes.io/name=diffcache"), 60, what="the operator gone")
    yield operator
    operator("scale", "deployment", name, "--replicas=1")
    operator("rollout", "status", "deployment", name, "--timeout=120s")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A failed test shows what its namespace looked like."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    inside = getattr(item, "funcargs", {}).get("namespace")
    if report.when == "call" and report.failed and isinstance(inside, Kube):
        told = [
            inside("get", "diffusioncache,statefulset,pod,pvc,service,configmap", "-o", "wide"),
            json.dumps([c.get("status") for c in inside.list("diffusioncache")], indent=1),
            inside("get", "events", "--sort-by=.lastTimestamp"),
        ]
        for pod in inside.list("pod", "diffcache.io/cache"):
            told.append(inside("logs", pod["metadata"]["name"], "--all-containers", "--tail=30", "--ignore-errors"))
        report.sections.append(("namespace", "\n".join(told)))
