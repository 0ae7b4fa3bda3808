"""Where pods run, as whom, and what they carry. Pure.

Redis and Milvus follow `serving.pod`, so that a node pool chosen for a cache is chosen for all of it, unless their own
`pod` says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffcache_core.resource.pod import Affinity, Placement, SecurityContext, Toleration
from diffcache_core.resource.spec import GpuSpec, ServingSpec
from diffcache_operator.metadata import JSON

USER = 10001  # of the images; it has an entry in their /etc/passwd

CONTAINER_SECURITY: JSON = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@dataclass(frozen=True)
class PodDefaults:
    """What the chart says of the pods of all caches."""

    pull_secrets: tuple[str, ...] = ()
    fixed_ids: bool = True
    """Pods of a resource that names no ids run as the images' user, and not as whom the cluster assigns."""


CHART_DEFAULTS = PodDefaults()
"""Of a chart whose values are the defaults."""


def pod_security(given: SecurityContext | None, defaults: PodDefaults) -> JSON:
    """The restricted profile of pod security, with the ids that somebody has named."""
    fixed = {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER} if defaults.fixed_ids else {}
    ids = fixed if given is None else given.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "runAsNonRoot": True,
        **ids,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def gpu_tolerations(gpu: GpuSpec) -> list[Toleration]:
    """GPU nodes are tainted with the device plug-in's resource. Nodes of MIG slices and shared GPUs, which are other
    resources of its domain, keep the taint of whole ones."""
    if gpu.count == 0:
        return []
    domain = gpu.resource_name.partition("/")[0]
    keys = dict.fromkeys([gpu.resource_name, f"{domain}/gpu"])
    return [Toleration(key=key, operator="Exists", effect="NoSchedule") for key in keys]


def placed(placement: Placement, defaults: PodDefaults) -> JSON:
    """The parts of a pod's spec."""
    parts = {"node_selector", "tolerations", "affinity", "runtime_class_name", "priority_class_name"}
    spec = placement.model_dump(mode="json", by_alias=True, exclude_none=True, include=parts)
    security = pod_security(placement.security_context, defaults)
    return {key: value for key, value in spec.items() if value != []} | {"securityContext": security}


def beside(serving: ServingSpec, own: Placement) -> Placement:
    """Of Redis' or Milvus' pod: its own word, and where that is silent the serving pods'.

    Rules about neighbours and the RuntimeClass are about the serving pods alone. A pod bound to the nodes of the
    serving pods tolerates the taint that these have for their GPUs, too.
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
