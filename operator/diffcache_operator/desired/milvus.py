"""Milvus standalone for one cache, from the official image, with embedded etcd and local storage."""

from __future__ import annotations

from diffcache_core.kubernetes.workloads import INDEX, milvus_name
from diffcache_core.resource.spec import DiffusionCache
from diffcache_operator.desired.beside import stateful_set_beside
from diffcache_operator.desired.config import MILVUS_PORT
from diffcache_operator.desired.network import service
from diffcache_operator.desired.placement import CONTAINER_SECURITY, PodDefaults
from diffcache_operator.desired.startup import startup_probe, until
from diffcache_operator.metadata import JSON

_HEALTH_PORT = 9091
_HEALTHY = (
    f"(exec 3<>/dev/tcp/localhost/{_HEALTH_PORT} && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 "
    "&& head -n 1 <&3 | grep -q ' 200 ') 2>/dev/null"
)
"""Uses only bash, head and grep: the image does not surely have an HTTP client."""
_DATA = "/var/lib/milvus"
_SESSION_SECONDS = "10"
"""Time to live of Milvus' sessions in etcd. A starting Milvus waits this long for parts of its predecessor that etcd
still believes to be alive. With the default of 30 a restart takes 40 s; a lower value lets Milvus end itself when its
disk or CPU stalls for a moment."""
_STOP_SECONDS = "5"
"""While a standalone Milvus stops, a part waits for another one that has already ended, until this time is over
(measured). With the default of 1800 the kubelet kills it after the grace period. Writes that it has acknowledged are
safe in its log."""


def milvus_service(resource: DiffusionCache) -> JSON:
    ports = [{"name": "grpc", "port": MILVUS_PORT, "targetPort": "grpc", "protocol": "TCP"}]
    return service(resource, milvus_name(resource.metadata.name), INDEX, {"type": "ClusterIP"}, ports)


def milvus_stateful_set(resource: DiffusionCache, image: str, defaults: PodDefaults, *, at_work: bool) -> JSON:
    standalone = resource.spec.index.standalone
    assert standalone is not None
    health = {"httpGet": {"path": "/healthz", "port": "health"}, "timeoutSeconds": 5}
    container: JSON = {
        "name": "milvus",
        "image": image,
        "args": ["milvus", "run", "standalone"],
        "env": [
            {"name": "ETCD_USE_EMBED", "value": "true"},
            {"name": "ETCD_DATA_DIR", "value": f"{_DATA}/etcd"},
            {"name": "COMMON_STORAGETYPE", "value": "local"},
            {"name": "COMMON_SESSION_TTL", "value": _SESSION_SECONDS},
            {"name": "COMMON_GRACEFULSTOPTIMEOUT", "value": _STOP_SECONDS},
        ],
        "ports": [
            {"name": "grpc", "containerPort": MILVUS_PORT, "protocol": "TCP"},
            {"name": "health", "containerPort": _HEALTH_PORT, "protocol": "TCP"},
        ],
        "resources": standalone.resources.model_dump(mode="json", exclude_none=True),
        "startupProbe": startup_probe("bash", "-c", until(_HEALTHY)),
        "readinessProbe": {**health, "periodSeconds": 5},
        "livenessProbe": {**health, "periodSeconds": 20, "failureThreshold": 6},
        "volumeMounts": [{"name": "data", "mountPath": _DATA}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
        "securityContext": CONTAINER_SECURITY,
    }
    pod: JSON = {
        "terminationGracePeriodSeconds": 60,
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    name, volume = milvus_name(resource.metadata.name), standalone.volume
    return stateful_set_beside(resource, name, INDEX, pod, standalone.pod, volume, defaults, at_work=at_work)
