"""Redis from the official image: the ledger of one cache, for the pods that share it.

Like Milvus, it has no password and is reached in the cluster's network. Where that is not safe enough, use an External
one.
"""

from __future__ import annotations

from decimal import Decimal

from diffcache_core.kubernetes.workloads import LEDGER, redis_name
from diffcache_core.quantities import amount_of
from diffcache_core.resource.spec import DiffusionCache, Resources
from diffcache_operator.desired.beside import stateful_set_beside
from diffcache_operator.desired.config import REDIS_PORT
from diffcache_operator.desired.network import service
from diffcache_operator.desired.placement import CONTAINER_SECURITY, PodDefaults
from diffcache_operator.desired.startup import startup_probe, until
from diffcache_operator.metadata import JSON

_DATA = "/data"
_FULL_SHARE = Decimal("0.5")
"""Share of the memory limit that data may take: a fork that rewrites the log may copy every page (redis.io,
administration, "Memory"). Above it Redis refuses writes, and requests miss; without it the kernel would kill Redis."""
_PING = 'test "$(redis-cli ping)" = PONG'
"""Compares the text, because redis-cli also ends with 0 when Redis answers LOADING while it reads its log."""


def redis_service(resource: DiffusionCache) -> JSON:
    ports = [{"name": "redis", "port": REDIS_PORT, "targetPort": "redis", "protocol": "TCP"}]
    return service(resource, redis_name(resource.metadata.name), LEDGER, {"type": "ClusterIP"}, ports)


def redis_stateful_set(resource: DiffusionCache, image: str, defaults: PodDefaults, *, at_work: bool) -> JSON:
    provisioned = resource.spec.cache.ledger.provisioned
    assert provisioned is not None
    probe = {"exec": {"command": ["sh", "-c", _PING]}, "timeoutSeconds": 5}
    container: JSON = {
        "name": "redis",
        "image": image,
        "args": ["redis-server", *_settings(provisioned.resources)],
        "ports": [{"name": "redis", "containerPort": REDIS_PORT, "protocol": "TCP"}],
        "resources": provisioned.resources.model_dump(mode="json", exclude_none=True),
        "startupProbe": startup_probe("sh", "-c", until(_PING)),
        "readinessProbe": {**probe, "periodSeconds": 5},
        "livenessProbe": {**probe, "periodSeconds": 20, "failureThreshold": 6},
        "volumeMounts": [{"name": "data", "mountPath": _DATA}],
        "securityContext": CONTAINER_SECURITY,
    }
    pod: JSON = {
        "terminationGracePeriodSeconds": 30,  # SIGTERM writes the log out and ends
        "containers": [container],
    }
    name, volume = redis_name(resource.metadata.name), provisioned.volume
    return stateful_set_beside(resource, name, LEDGER, pod, provisioned.pod, volume, defaults, at_work=at_work)


def _settings(resources: Resources) -> list[str]:
    settings = {
        "dir": _DATA,
        "port": str(REDIS_PORT),
        "protected-mode": "no",  # else only its own pod may connect
        "appendonly": "yes",
        "appendfsync": "everysec",  # a lost node loses the last second; states without a record are deleted later
        "save": "",
        "maxmemory-policy": "noeviction",  # the cache's policy evicts, never Redis
    }
    limit = amount_of(str((resources.limits or {}).get("memory", "")))
    if isinstance(limit, Decimal):
        settings["maxmemory"] = str(int(limit * _FULL_SHARE))
    return [word for name, value in settings.items() for word in (f"--{name}", value)]
