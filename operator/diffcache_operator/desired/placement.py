"""On which nodes pods run, as which user, and with which labels and options. Pure.

Redis and Milvus use `serving.pod` too, unless their own `pod` says otherwise: so one choice of a node pool holds for
the whole cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffcache_core.resource.pod import Affinity, Placement, SecurityContext, Toleration
from diffcache_core.resource.spec import GpuSpec, ServingSpec
from diffcache_operator.metadata import JSON

USER = 10001  # user and group id of the images; their /etc/passwd has an entry for it

CONTAINER_SECURITY: JSON = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@dataclass(frozen=True)
class PodDefaults:
    """Settings of the chart for the pods of all caches."""

    pull_secrets: tuple[str, ...] = ()
    fixed_ids: bool = True
    """True: pods of a resource that names no ids run as the images' user. False: the cluster assigns the ids."""


CHART_DEFAULTS = PodDefaults()
"""The defaults of a chart with default values."""


def pod_security(given: SecurityContext | None, defaults: PodDefaults) -> JSON:
    """Returns a securityContext that meets the restricted Pod Security Standard, with the user's ids if there are
    any."""
    fixed = {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER} if defaults.fixed_ids else {}
    ids = fixed if given is None else given.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "runAsNonRoot": True,
        **ids,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def gpu_tolerations(gpu: GpuSpec) -> list[Toleration]:
    """Returns tolerations of the taints of GPU nodes. A taint is named after the device plug-in's resource. Nodes with
    MIG slices or shared GPUs have other resources of the same domain, but keep the taint of whole GPUs."""
    if gpu.count == 0:
        return []
    domain = gpu.resource_name.partition("/")[0]
    keys = dict.fromkeys([gpu.resource_name, f"{domain}/gpu"])
    return [Toleration(key=key, operator="Exists", effect="NoSchedule") for key in keys]


def placed(placement: Placement, defaults: PodDefaults) -> JSON:
    """Returns the placement as parts of a pod's spec."""
    parts = {"node_selector", "tolerations", "affinity", "runtime_class_name", "priority_class_name"}
    spec = placement.model_dump(mode="json", by_alias=True, exclude_none=True, include=parts)
    security = pod_security(placement.security_context, defaults)
    return {key: value for key, value in spec.items() if value != []} | {"securityContext": security}


def beside(serving: ServingSpec, own: Placement) -> Placement:
    """Returns the placement of Redis' or Milvus' pod: its own values, and for all others those of the serving pods.

    Affinity between pods and the RuntimeClass only concern the serving pods and are not inherited. A pod bound to the
    nodes of the serving pods also tolerates the GPU taint of these nodes.
    """
    pod = serving.pod
    nodes = pod.affinity.node_affinity if pod.affinity else None
    bound = pod.node_selector or nodes
    tolerations = [*(pod.tolerations or []), *(gpu_tolerations(serving.gpu) if bound else [])]
    followed: dict[str, object] = {
        "node_selector": pod.node_selector,
        "tolerations": tolerations or None,
        "affinity": Affinity().model_copy(update={"node_affinity": nodes}) if nodes else None,
        "priority_class_name": pod.priority_class_name,
        "security_context": pod.security_context,
        "labels": pod.labels,
        "annotations": pod.annotations,
    }
    return own.model_copy(update={name: value for name, value in followed.items() if getattr(own, name) is None})
