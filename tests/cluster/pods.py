"""Pods of a test's own, as the restricted Pod Security profile wants them, and a client among them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from diffcache_core.names import SERVING_IMAGE
from tests.cluster.kube import JSON, Kube, eventually

SERVING = f"{SERVING_IMAGE}:{version('diffcache')}"
"""Python, the client and pymilvus are in it, and the cluster has it already."""

USER = 10001

_DRAW = """
import sys, diffcache
with diffcache.Client(sys.argv[1]) as client:
    for prompt in sys.argv[2:]:
        print(client.generate(prompt).result)
"""


def pod(
    name: str,
    *command: str,
    image: str = SERVING,
    env: Mapping[str, str] | None = None,
    volumes: Mapping[str, JSON] | None = None,
    readiness: JSON | None = None,
) -> JSON:
    """`volumes`: by the folder where they are mounted."""
    mounts = {f"volume-{i}": (path, source) for i, (path, source) in enumerate((volumes or {}).items())}
    container: JSON = {
        "name": name,
        "image": image,
        "command": list(command),
        "env": [{"name": key, "value": value} for key, value in (env or {}).items()],
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, (path, _) in mounts.items()],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if readiness:
        container["readinessProbe"] = readiness | {"periodSeconds": 1}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"test": name}},
        "spec": {
            "containers": [container],
            "volumes": [{"name": volume, **source} for volume, (_, source) in mounts.items()],
            "securityContext": {"fsGroup": USER},
            "restartPolicy": "Never",
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
        },
    }


def service(name: str, port: int) -> JSON:
    """In front of the pod of this name."""
    spec = {"selector": {"test": name}, "ports": [{"port": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def secret(name: str, **values: str) -> JSON:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}


def claim(name: str) -> JSON:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def start_client(inside: Kube) -> None:
    """What `in_client` and `draw` run in."""
    inside.apply(pod("client", "sleep", "infinity"))
    inside("wait", "pod/client", "--for=condition=Ready", "--timeout=60s")


def in_client(inside: Kube, program: str, *arguments: str) -> list[str]:
    """The words that a Python program prints."""
    return inside("exec", "client", "--", "python", "-c", program, *arguments).split()


def draw(inside: Kube, *prompts: str, cache: str = "emoji") -> list[str]:
    """The results of requests to the cache's Service, one after the other."""
    return in_client(inside, _DRAW, f"{cache}:50051", *prompts)


def serving_pod(inside: Kube, cache: str = "emoji", other_than: str = "") -> JSON:
    """The ready pod of a cache, made after the one whose uid is `other_than`."""

    def look() -> JSON | None:
        found = inside.get("pod", f"{cache}-0")
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in found["status"]["conditions"])
        return found if ready and found["metadata"]["uid"] != other_than else None

    return eventually(look, 90, what=f"{cache}-0 ready") or {}
