"""The node that `up` starts is a cluster like others, as far as the other tests rely on it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.kube import BIN, JSON, ROOT, Kube, cache, eventually, run

pytestmark = [pytest.mark.cluster, pytest.mark.node]

NODE = Path(__file__).parent
STATE = Path(os.environ.get("DIFFCACHE_CLUSTER", ROOT / "build" / "cluster")).absolute()
IMAGE = "docker.io/diffcache/operator:" + run(["sed", "-n", 's/^version = "\\(.*\\)"/\\1/p', "pyproject.toml"]).strip()
SERVER = "python -m http.server --directory /data 8080"


def pod(name: str, command: str) -> JSON:
    """As restricted as it gets, with a volume that only its fsGroup lets it write."""
    container: dict[str, Any] = {
        "name": "main",
        "image": IMAGE,
        "command": ["sh", "-ec", command],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": True, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    }


CLAIM: JSON = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}
SERVICE: JSON = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "pages"},
    "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
}


def test_pod_volume_service_dns_and_kubelet(namespace: Kube) -> None:
    namespace.apply(CLAIM, SERVICE, pod("web", f"echo started; echo hello >/data/index.html; exec {SERVER}"))
    namespace("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
    assert "started" in namespace("logs", "web")
    ask = f"from urllib.request import urlopen; print(urlopen('http://pages.{namespace.namespace}.svc').read())"
    eventually(lambda: "hello" in namespace("exec", "web", "--", "python", "-c", ask), 10)
    assert forwarded(namespace, "service/pages", "80").strip() == "hello"


def forwarded(namespace: Kube, target: str, port: str) -> str:
    command = [str(BIN / "kubectl"), "-n", namespace.namespace, "port-forward", target, f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
        try:
            assert forward.stdout is not None
            line = forward.stdout.readline()  # Forwarding from 127.0.0.1:40123 -> 8080
            return run(["curl", "--fail", "--silent", line.split()[2]])
        finally:
            forward.terminate()


def test_a_volume_is_wiped_and_offered_again(namespace: Kube, kube: Kube) -> None:
    namespace.apply(CLAIM, pod("web", f"echo secret >/data/index.html; exec {SERVER}"))
    namespace("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
    volume = namespace.get("pvc", "data")["spec"]["volumeName"]
    namespace("delete", "pod/web", "pvc/data")
    eventually(lambda: kube.get("pv", volume)["status"]["phase"] == "Available", 90)
    assert list((STATE / "volumes" / volume).iterdir()) == []


def test_pods_that_are_not_restricted_are_refused(namespace: Kube) -> None:
    assert "violates PodSecurity" in namespace.refused("run", "free", f"--image={IMAGE}")


def test_a_killed_api_server_comes_back_and_has_told_who_wrote_what(namespace: Kube) -> None:
    run([str(NODE / "restart"), "apiserver"])
    namespace("create", "configmap", "noted")

    def noted() -> bool:
        lines = (STATE / "log" / "audit.log").read_text().splitlines()
        events = [json.loads(line) for line in lines if '"noted"' in line and namespace.namespace in line]
        return any(event["verb"] == "create" and event["user"]["username"] == "admin" for event in events)

    eventually(noted, 10)


def test_the_operator_outlives_an_api_server(operator: Kube, namespace: Kube) -> None:
    """It neither ends nor falls silent when the server is killed and comes back."""
    namespace.apply(cache("before", serving={"replicas": 0}))
    namespace.wait_reason("before", "ScaledToZero")
    run([str(NODE / "restart"), "apiserver"])
    text = json.dumps(cache("after", serving={"replicas": 0}))
    eventually(lambda: namespace("apply", "-f", "-", text=text), 60)
    namespace.wait_reason("after", "ScaledToZero", within=120)
    namespace("delete", "service", "before")
    eventually(lambda: namespace.exists("service", "before"), 60, what="its watches are back, too")
    (pod,) = operator.list("pod", "app.kubernetes.io/name=diffcache")
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


def test_down_says_what_it_does_and_leaves_nothing(tmp_path: Path) -> None:
    """Also of a start that failed half-way."""
    left = tmp_path / "cluster" / "images" / "blobs" / "layer"
    left.mkdir(parents=True)
    (left / "file").touch()

    def down() -> str:
        environment = os.environ | {"DIFFCACHE_CLUSTER": str(tmp_path / "cluster")}
        return subprocess.run([NODE / "down"], env=environment, check=True, capture_output=True, text=True).stderr

    assert f"removing its files in {tmp_path}/cluster" in (told := down())
    assert "gone after" in told
    assert not (tmp_path / "cluster").exists()
    assert "there is none" in down()
