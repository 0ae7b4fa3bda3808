"""The template of a serving pod. Every byte of it must stay stable: a change here restarts the pods of all caches.

tests/golden holds it. A change must be in the release notes.
"""

from __future__ import annotations

from typing import Any

from diffcache_core.choices import SourceKind
from diffcache_core.kubernetes.workloads import SERVING
from diffcache_core.names import ADMIN_PORT, GRPC_PORT, METRICS_PORT, MODEL_MOUNT, REASON_FILE_ENVIRONMENT
from diffcache_core.resource.pod import SecretKeyRef
from diffcache_core.resource.spec import DiffusionCache, GpuSpec, S3Spec, ServingSpec, is_shared
from diffcache_core.resource_to_config import INDEX_CA, INDEX_TOKEN, LEDGER_CA, LEDGER_PASSWORD, MODEL_CA, STORE_CA
from diffcache_operator.desired.config import CONFIG_KEY, CONFIG_MOUNT, DATA_MOUNT, SECRETS_MOUNT, restart_digest
from diffcache_operator.desired.placement import CONTAINER_SECURITY, PodDefaults, gpu_tolerations, placed
from diffcache_operator.desired.startup import startup_probe, until_listening
from diffcache_operator.metadata import JSON, config_name, labels, selector_labels

DRAIN_SECONDS = 45  # the server takes up to 25 s for requests in flight, then writes out its cache
FETCH_CONTAINER = "fetch-model"
BUNDLED_MEMORY = "1Gi"
"""Memory request for the bundled model if the resource sets none: what process and Milvus Lite take, measured on a CPU.
With less a full node kills this pod before others; more takes room away from them."""
RESTART_ANNOTATION = "diffcache.io/restart"
S3_CREDENTIALS, S3_SESSION = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "AWS_SESSION_TOKEN"
GKE_DRIVER = "/usr/local/nvidia/lib64"
"""Where GKE mounts the driver's libraries; the loader's path lacks it (GKE's documentation on running GPUs)."""
_FURTHER = {"topology_spread_constraints", "resource_claims"}
"""Options that only serving pods have. Pull secrets are in the ServiceAccount, so that a new mirror restarts no pod."""


def pod_template(resource: DiffusionCache, image: str, defaults: PodDefaults) -> JSON:
    serving, options = resource.spec.serving, resource.spec.serving.pod
    name = resource.metadata.name
    tolerations = [*(options.tolerations or []), *gpu_tolerations(serving.gpu)]
    placement = options.model_copy(update={"tolerations": tolerations})
    further = options.model_dump(mode="json", by_alias=True, exclude_none=True, include=_FURTHER)
    spec: JSON = {
        **_spread(resource),
        **further,
        **placed(placement, defaults),
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": DRAIN_SECONDS,
        "initContainers": _init_containers(resource, image),
        "containers": [_serving_container(resource, image, further.get("resourceClaims", []))],
        "volumes": _volumes(resource),
    }
    return {
        "metadata": {
            "labels": labels(name, SERVING) | (options.labels or {}),
            "annotations": {RESTART_ANNOTATION: restart_digest(resource)} | (options.annotations or {}),
        },
        "spec": {key: value for key, value in spec.items() if value != []},
    }


def _spread(resource: DiffusionCache) -> JSON:
    """Spreads the pods of a shared cache over the nodes where possible. It must not depend on the current replicas, or
    scaling would change the template."""
    if not is_shared(resource.spec):
        return {}
    selector = {"matchLabels": selector_labels(resource.metadata.name, SERVING)}
    node = {"topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    return {"topologySpreadConstraints": [{"maxSkew": 1, **node, "labelSelector": selector}]}


def _serving_container(resource: DiffusionCache, image: str, claims: list[JSON]) -> JSON:
    probe = {"grpc": {"port": GRPC_PORT}, "timeoutSeconds": 5}
    return {
        "name": SERVING,
        "image": image,
        "args": ["--config", f"{CONFIG_MOUNT}/{CONFIG_KEY}"],
        "ports": [
            {"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"},
            {"name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        "env": _environment(resource),
        "resources": _resources(resource, claims),
        "startupProbe": startup_probe("python", "-S", "-c", until_listening(GRPC_PORT)),
        "readinessProbe": {**probe, "periodSeconds": 5, "failureThreshold": 2},
        "livenessProbe": {**probe, "periodSeconds": 20, "failureThreshold": 6},
        "volumeMounts": _mounts(resource),
        "securityContext": CONTAINER_SECURITY,
    }


def _init_containers(resource: DiffusionCache, image: str) -> list[JSON]:
    """Returns a container that downloads a model of the Hub into the pod's volume, once. The serving process itself
    never downloads."""
    model = resource.spec.model
    if SourceKind.of(model.source) is not SourceKind.HUB:
        return []
    token = [_from_secret("HF_TOKEN", model.token_secret_ref)] if model.token_secret_ref else []
    return [
        {
            "name": FETCH_CONTAINER,
            "image": image,
            "command": ["python", "-m", "diffcache_serving.fetch"],
            "args": ["--config", f"{CONFIG_MOUNT}/{CONFIG_KEY}"],
            "env": _merged(_own_environment(), _user_environment(resource.spec.serving), token),
            # A quota or a limit range may require it of every container. The pod needs the larger of the two, not their
            # sum.
            "resources": resource.spec.serving.resources.model_dump(mode="json", exclude_none=True),
            "volumeMounts": _mounts(resource),
            "securityContext": CONTAINER_SECURITY,
        }
    ]


def _environment(resource: DiffusionCache) -> list[JSON]:
    serving, s3 = resource.spec.serving, resource.spec.cache.store.s3
    return _merged(
        _own_environment(), _gpu_environment(serving.gpu), _store_environment(s3), _user_environment(serving)
    )


def _own_environment() -> list[JSON]:
    return [
        {"name": REASON_FILE_ENVIRONMENT, "value": "/dev/termination-log"},  # becomes the pod's termination message
        {"name": "HOME", "value": "/tmp"},  # noqa: S108  # the root is read-only
    ]


def _gpu_environment(gpu: GpuSpec) -> list[JSON]:
    if gpu.count == 0:
        # Images on a CUDA base ask for all GPUs, and a node with nvidia's runtime as its default would give them.
        return [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]
    return [
        {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "compute,utility"},
        {"name": "LD_LIBRARY_PATH", "value": GKE_DRIVER},
    ]


def _store_environment(s3: S3Spec | None) -> list[JSON]:
    """Returns variables with the credentials, under the names that all S3 tools read."""
    if s3 is None or s3.credentials_secret_ref is None:
        return []
    secret = s3.credentials_secret_ref.name
    named = [_from_secret(key, SecretKeyRef(name=secret, key=key)) for key in S3_CREDENTIALS]
    token = _from_secret(S3_SESSION, SecretKeyRef(name=secret, key=S3_SESSION))
    token["valueFrom"]["secretKeyRef"]["optional"] = True
    return [*named, token]


def _user_environment(serving: ServingSpec) -> list[JSON]:
    return [env.model_dump(mode="json", by_alias=True, exclude_none=True) for env in serving.pod.env or []]


def _merged(*lists: list[JSON]) -> list[JSON]:
    """Merges the lists; the last variable of a name wins. Server-side apply rejects two variables of one name."""
    return list({env["name"]: env for some in lists for env in some}.values())


def _from_secret(variable: str, reference: SecretKeyRef) -> JSON:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": reference.name, "key": reference.key}}}


def _resources(resource: DiffusionCache, claims: list[JSON]) -> JSON:
    serving = resource.spec.serving
    resources: dict[str, Any] = serving.resources.model_dump(mode="json", exclude_none=True)
    is_bundled = SourceKind.of(resource.spec.model.source) is SourceKind.BUNDLED
    if is_bundled and not any("memory" in resources.get(kind, {}) for kind in ("requests", "limits")):
        resources["requests"] = {"memory": BUNDLED_MEMORY} | resources.get("requests", {})
    if serving.gpu.count:
        for kind in ("requests", "limits"):
            resources[kind] = resources.get(kind, {}) | {serving.gpu.resource_name: str(serving.gpu.count)}
    if claims:
        resources["claims"] = [{"name": claim["name"]} for claim in claims]
    return resources


def _mounts(resource: DiffusionCache) -> list[JSON]:
    names = {volume["name"] for volume in _volumes(resource)}
    mounts: list[JSON] = [
        {"name": "data", "mountPath": DATA_MOUNT},
        {"name": "config", "mountPath": CONFIG_MOUNT, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
    ]
    if "model" in names:
        mounts.append({"name": "model", "mountPath": MODEL_MOUNT, "readOnly": True})
    if "secrets" in names:
        mounts.append({"name": "secrets", "mountPath": SECRETS_MOUNT, "readOnly": True})
    return mounts


def _volumes(resource: DiffusionCache) -> list[JSON]:
    volumes: list[JSON] = [
        {"name": "config", "configMap": {"name": config_name(resource.metadata.name)}},
        {"name": "tmp", "emptyDir": {}},
    ]
    source = resource.spec.model.source
    if SourceKind.of(source) is SourceKind.PVC:
        claim = source.removeprefix("pvc://").partition("/")[0]
        volumes.append({"name": "model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
    if sources := _secret_files(resource):
        volumes.append({"name": "secrets", "projected": {"sources": sources}})
    return volumes


def _secret_files(resource: DiffusionCache) -> list[JSON]:
    """Returns the sources of the volume with Secrets. The operator only names them and never reads them."""
    named: list[tuple[str, SecretKeyRef | None]] = []
    if index := resource.spec.index.external:
        named += [(INDEX_TOKEN, index.token_secret_ref), (INDEX_CA, index.ca_secret_ref)]
    if ledger := resource.spec.cache.ledger.external:
        named += [(LEDGER_PASSWORD, ledger.password_secret_ref), (LEDGER_CA, ledger.ca_secret_ref)]
    if s3 := resource.spec.cache.store.s3:
        named.append((STORE_CA, s3.ca_secret_ref))
    named.append((MODEL_CA, resource.spec.model.ca_secret_ref))
    return [
        {"secret": {"name": reference.name, "items": [{"key": reference.key, "path": file}]}}
        for file, reference in named
        if reference is not None
    ]
