"""The ConfigMap that the pods watch, and the digest that restarts them for changes that need a restart."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from diffcache_core.kubernetes.workloads import SERVING, milvus_name, redis_name
from diffcache_core.names import API_VERSION, KIND
from diffcache_core.net.listening import ANY
from diffcache_core.resource.rules import Change, fields_by_change
from diffcache_core.resource.spec import DiffusionCache, DiffusionCacheSpec
from diffcache_core.resource.status import TuningStatus
from diffcache_core.resource_to_config import Host, build_serving_config
from diffcache_core.serving_config import ListenConfig, revision_of
from diffcache_operator.metadata import JSON, child, config_name

CONFIG_KEY = "serving.json"
DATA_MOUNT, CONFIG_MOUNT, SECRETS_MOUNT = "/var/lib/diffcache", "/etc/diffcache", "/etc/diffcache-secrets"
MILVUS_PORT, REDIS_PORT = 19530, 6379


_ELSEWHERE = (("serving",), ("index", "standalone"), ("cache", "ledger", "provisioned"))
"""Blocks of the spec that are already in the pod template, or that belong to other pods."""


def config_map(resource: DiffusionCache, tuning: TuningStatus | None = None) -> JSON:
    """Makes the ConfigMap with the config of the serving pods. `tuning`: the tuner's record, if the pods must follow
    it."""
    name = resource.metadata.name
    around = Host(
        data_dir=Path(DATA_MOUNT),
        # The admin port stays on the pod's own loopback: `kubectl port-forward` reaches it, the network does not.
        listen=ListenConfig(host=ANY, metrics_host=ANY),
        standalone_uri=f"http://{milvus_name(name)}:{MILVUS_PORT}",
        provisioned_ledger=f"redis://{redis_name(name)}:{REDIS_PORT}/0",
        secrets_dir=Path(SECRETS_MOUNT),
    )
    config = build_serving_config(resource, around, tuning)
    return child(
        "v1", "ConfigMap", resource, config_name(name), SERVING, data={CONFIG_KEY: config.model_dump_json(indent=2)}
    )


def config_revision(config_map: JSON) -> str:
    """Returns the revision that pods with this config export as `diffcache_config_info{revision}`."""
    return revision_of(config_map["data"][CONFIG_KEY].encode())


def restart_digest(resource: DiffusionCache) -> str:
    """Returns a digest that changes exactly when a change of the config must replace the pods.

    It covers the spec's values that are not defaults, and not the rendered config: an operator that knows more fields,
    or renders them differently, must restart nothing.
    """
    spec = resource.spec.model_dump(mode="json", exclude_defaults=True)
    values = {}
    for path, change in fields_by_change(DiffusionCacheSpec):
        if change in (Change.HOT, Change.GROW) or any(path[: len(block)] == block for block in _ELSEWHERE):
            continue
        value: object = spec
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            values[".".join(path)] = value
    secrets = resource.spec.serving.pod.image_pull_secrets  # a pod gets them from its ServiceAccount when it is created
    if secrets:
        values["serving.pod.image_pull_secrets"] = [secret.name for secret in secrets]
    if annotations := resource.spec.serving.service_account.annotations:  # EKS and AKS read them when a pod is created
        values["serving.service_account.annotations"] = annotations
    text = json.dumps([API_VERSION, KIND, values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
