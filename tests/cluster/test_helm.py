"""The chart's life on a cluster: what Helm does to the operator, no cache's pod feels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffcache_core.names import SERVING_IMAGE
from tests.cluster.conftest import RELEASE, SYSTEM
from tests.cluster.kube import BIN, JSON, ROOT, CommandFailed, Kube, cache, eventually, run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

CHART = "charts/diffcache"
CRD = "diffusioncaches.diffcache.io"
PRESENT = str(yaml.safe_load((ROOT / CHART / "Chart.yaml").read_text())["appVersion"])
NEWER = "99.0.0"
"""A version of which there are no images: the operator keeps its own, and nothing may ask for the serving one."""


@dataclass(frozen=True)
class Helm:
    """One release, by one of the Helms."""

    program: str
    release: str = RELEASE
    namespace: str = SYSTEM

    def __call__(self, verb: str, *arguments: str) -> str:
        return run([self.program, verb, self.release, "-n", self.namespace, *arguments])

    def refused(self, verb: str, *arguments: str) -> str:
        with pytest.raises(CommandFailed) as caught:
            self(verb, *arguments)
        return caught.value.text

    def install(self, chart: str, *arguments: str) -> None:
        self("install", chart, "--create-namespace", "--wait", *arguments)


@pytest.fixture(params=["helm3", "helm4"])
def either(helm: str, request: pytest.FixtureRequest, empty: None) -> Helm:
    return Helm(str(Path(helm).parent / request.param))


@pytest.fixture
def helm4(helm: str, empty: None) -> Helm:
    return Helm(helm)


@pytest.fixture(scope="module", autouse=True)
def session_release(kube: Kube, helm: str) -> Iterator[None]:
    """What other tests have installed goes, and is there again afterwards."""
    there = RELEASE in [one["name"] for one in releases(helm)]
    yield
    if there:
        Helm(helm).install(CHART)


@pytest.fixture
def empty(kube: Kube, helm: str, namespace: Kube) -> Iterator[None]:
    """Before and after: no release of the chart, no CRD, and so no cache. The namespace goes later."""
    clear(kube, helm)
    yield
    clear(kube, helm)


def clear(kube: Kube, helm: str) -> None:
    for one in releases(helm):
        Helm(helm, one["name"], one["namespace"])("uninstall", "--wait")
    kube("delete", "crd", CRD, "--ignore-not-found", "--timeout=60s")


def releases(helm: str) -> list[dict[str, Any]]:
    found = json.loads(run([helm, "list", "--all-namespaces", "--output", "json"]))
    return [one for one in found if one["chart"].startswith("diffcache-")]


@pytest.fixture(scope="module")
def packages(helm: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart, and what the next version might be, as files."""
    folder = tmp_path_factory.mktemp("charts")
    run([helm, "package", CHART, "-d", str(folder)])
    run([helm, "package", CHART, "-d", str(folder), "--version", NEWER, "--app-version", NEWER])
    return folder


def traces(inside: Kube) -> JSON:
    """What any restart or rewrite of the workload would change."""
    pod, workload = inside.get("pod", "emoji-0"), inside.get("statefulset", "emoji")
    return {
        "pod": pod["metadata"]["uid"],
        "restarts": [container["restartCount"] for container in pod["status"]["containerStatuses"]],
        "workload": workload["metadata"]["uid"],
        "generation": workload["metadata"]["generation"],
    }


def plugin(inside: Kube, *words: str) -> str:
    return run([str(BIN / "kubectl"), "diffcache", *words, "-n", inside.namespace])


def test_install_upgrade_uninstall_and_come_back(
    either: Helm, packages: Path, kube: Kube, namespace: Kube, tmp_path: Path
) -> None:
    older, newer = (str(packages / f"diffcache-{version}.tgz") for version in (PRESENT, NEWER))
    system = kube.within(SYSTEM)
    either.install(older)
    namespace.apply(cache())
    namespace.wait_ready("emoji")
    before = traces(namespace)

    operator = system.list("pod", "app.kubernetes.io/name=diffcache")[0]["metadata"]["name"]
    either("upgrade", older, "--wait", "--set", "resyncSeconds=60")
    assert not system.exists("pod", operator)
    either("test")
    eventually(lambda: not system.list("diffusioncache,pod", "app.kubernetes.io/component!=operator"), 60)

    either("upgrade", newer, "--wait", "--set", f"image.tag={PRESENT}")
    assert f"{SERVING_IMAGE}:{NEWER}" in namespace.wait_reason("emoji", "OtherImage", "UpdateAvailable")
    change_capacity(namespace, "48Mi", 48 * 2**20)
    assert traces(namespace) == before

    either("uninstall", "--wait")
    assert not system.list("deployment")
    namespace.wait_ready("emoji", within=0)
    assert plugin(namespace, "generate", "emoji", "red apple", "-o", str(tmp_path / "a.png")).startswith("MISS")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")

    again = Helm(either.program, "again", namespace.namespace)
    again.install(CHART)
    eventually(lambda: "UpdateAvailable" not in conditions(namespace), what="adopted")
    assert traces(namespace) == before
    namespace("scale", "diffusioncache", "emoji", "--replicas=0")
    namespace.wait_reason("emoji", "ScaledToZero")
    eventually(lambda: not namespace.exists("pod", "emoji-0"), 60)


def conditions(inside: Kube) -> set[str]:
    return {one["type"] for one in inside.get("diffusioncache", "emoji")["status"]["conditions"]}


def change_capacity(inside: Kube, text: str, size: int) -> None:
    """While the pod runs."""
    inside.patch("diffusioncache", "emoji", {"spec": {"cache": {"capacity": text}}})
    eventually(lambda: str(size) in inside.get("configmap", "emoji-config")["data"]["serving.json"], 30)
    inside("annotate", "pod", "emoji-0", "test=now")  # kubelet looks at a changed pod's volumes at once, else in time

    def capacity() -> int:
        return int(json.loads(plugin(inside, "stats", "emoji", "-o", "json"))["capacity_bytes"])

    eventually(lambda: capacity() == size, 120, 2, what="the new capacity in the pod")


def test_a_chart_installed_twice_says_so_and_takes_over(helm4: Helm, namespace: Kube) -> None:
    helm4.install(CHART)
    other = Helm(helm4.program, "other", namespace.namespace)
    assert f"WARNING: the operator {SYSTEM}/{RELEASE}-" in other("install", CHART)

    def told() -> str:
        return namespace("logs", "deployment/other-diffcache", "--ignore-errors")

    eventually(lambda: f"the operator {SYSTEM}/{RELEASE}-" in told(), 60, what="the second one waits and says so")
    assert not namespace.get("deployment", "other-diffcache")["status"].get("readyReplicas")
    helm4("uninstall", "--wait")
    namespace("rollout", "status", "deployment", "other-diffcache", "--timeout=60s")
    namespace.apply(cache(serving={"replicas": 0}))
    namespace.wait_reason("emoji", "ScaledToZero")
    other("uninstall", "--wait")


def test_a_failed_test_leaves_nothing(helm4: Helm, kube: Kube) -> None:
    helm4.install(CHART, "--set", "servingImage.tag=NOTHING,test.timeoutSeconds=10")
    helm4.refused("test", "--timeout=20s")
    helm4("uninstall", "--wait")
    left = "pod,configmap,serviceaccount,role,rolebinding"
    eventually(lambda: not kube.within(SYSTEM).list(left, "app.kubernetes.io/name=diffcache"), 60, what="all gone")


def test_the_crd_comes_and_goes_under_the_operator(helm4: Helm, kube: Kube, namespace: Kube) -> None:
    system = kube.within(SYSTEM)
    helm4("install", CHART, "--create-namespace", "--set", "crds.install=false")

    def log() -> str:
        return system("logs", f"deployment/{RELEASE}", "--ignore-errors")

    eventually(lambda: "crds.install=true" in log(), 60, what="it says what is missing")
    assert not system.get("deployment", RELEASE)["status"].get("readyReplicas")
    for _ in range(2):
        kube("apply", "--server-side", "-f", str(ROOT / "crds" / f"{CRD}.yaml"))
        system("rollout", "status", "deployment", RELEASE, "--timeout=60s")
        namespace.apply(cache(serving={"replicas": 0}))
        namespace.wait_reason("emoji", "ScaledToZero")
        kube("delete", "crd", CRD, "--timeout=60s")
        eventually(lambda: not system.get("deployment", RELEASE)["status"].get("readyReplicas"), 60, what="it waits")
    assert "Traceback" not in log()
    (pod,) = system.list("pod", "app.kubernetes.io/name=diffcache")
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


def test_some_namespaces_only(helm4: Helm, kube: Kube, namespace: Kube) -> None:
    """With no right over the cluster."""
    watched, system = namespace.namespace, kube.within(SYSTEM)
    demand = {"limits.cpu": "8", "limits.memory": "8Gi"}  # as limits they are asked of every pod
    namespace.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": demand}})
    helm4.install(CHART, "--set", f"watchNamespaces={{{watched}}}")
    roles = "clusterrole,clusterrolebinding"
    assert not [one for one in kube.list(roles) if "diffcache" in one["metadata"]["name"]]
    who = f"--as=system:serviceaccount:{SYSTEM}:{RELEASE}"
    assert namespace("auth", "can-i", "patch", "statefulsets", who).strip() == "yes"
    assert system.refused("auth", "can-i", "list", "pods", who).strip() == "no"
    system.apply(cache("unseen", serving={"replicas": 0}))
    namespace.apply(cache(serving={"replicas": 0}))
    namespace.wait_reason("emoji", "ScaledToZero")
    assert system.get("diffusioncache", "unseen")["status"] == {"observedGeneration": -1}
    assert system.list("pod")[0]["status"]["containerStatuses"][0]["restartCount"] == 0
    helm4("test")  # under the quota


def test_a_crd_of_another_owner_is_handed_over(either: Helm, kube: Kube) -> None:
    """Applied with kubectl, and of another version: as the chart's README says."""
    crd = yaml.safe_load((ROOT / "crds" / f"{CRD}.yaml").read_text())
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = "of another version"
    kube.apply(crd)
    assert "invalid ownership metadata" in either.refused("install", CHART, "--create-namespace")
    force = ["--force-conflicts"] if either.program.endswith("4") else []
    either("install", CHART, "--create-namespace", "--take-ownership", *force)
    taken = kube.get("crd", CRD)
    assert "of another version" not in json.dumps(taken["spec"])
    either("uninstall")
    assert kube.exists("crd", CRD)


CACHE_TEMPLATE = """
apiVersion: diffcache.io/v1alpha1
kind: DiffusionCache
metadata: {name: "{{ .Release.Name }}"}
spec:
  model: {source: "bundled://emoji", steps: 8, guidance: "3.0"}
  {{- with .Values.image }}
  serving: {image: "{{ . }}"}
  {{- end }}
"""


def test_helm_4_waits_for_a_cache_of_a_chart(helm4: Helm, namespace: Kube, tmp_path: Path) -> None:
    helm4.install(CHART)
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "cache.yaml").write_text(CACHE_TEMPLATE)
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: art, version: 1.0.0}")
    art, never = (Helm(helm4.program, name, namespace.namespace) for name in ("art", "never"))
    art.install(str(tmp_path))
    namespace.wait_ready("art", within=0)
    told = never.refused(
        "install", str(tmp_path), "--wait", "--timeout=20s", "--set", "image=docker.io/diffcache/NOTHING:1"
    )
    assert "never" in told
    assert "not ready" in told
