"""Why a pod does not come up, in words that say what to do. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from diffcache_core.reasons import parse_termination_message

JSON = dict[str, Any]

_IMAGE_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}


@dataclass(frozen=True)
class Problem:
    reason: str  # of a condition
    message: str


@dataclass(frozen=True)
class Workload:
    """Whose pods are looked at, and where in the resource a person mends them."""

    name: str  # of the StatefulSet
    block: str  # `spec.serving`
    volume: str  # `spec.cache.store.volume`
    gpu: str = ""  # the resource's name, if the pods want any


def diagnose(
    workload: Workload, pods: Iterable[JSON], claims: Iterable[JSON], events: Iterable[JSON], overdue: str = ""
) -> Problem | None:
    """The first problem of the first pod that has one. `overdue`: RFC 3339; a pod that should have gone by then."""
    pods, claims, events = list(pods), list(claims), list(events)
    for pod in pods:
        if (leaving := pod["metadata"].get("deletionTimestamp")) is not None:
            problem = _lost(pod) if leaving < overdue else None
        else:
            problem = (
                _unscheduled(pod, claims, workload) or _container_problem(pod, workload) or _mount_problem(pod, events)
            )
        if problem is not None:
            return problem
    return None if pods else _refused_pod(workload, events)


def _lost(pod: JSON) -> Problem:
    """Only its node can say that it has ended, and until then a StatefulSet makes no other one."""
    name, node = pod["metadata"]["name"], pod["spec"].get("nodeName", "")
    return Problem(
        "NodeLost",
        f"the pod {name} should have ended, and node {node} does not say so: bring the node back; or, if it is gone "
        f"for good, taint it node.kubernetes.io/out-of-service or `kubectl delete pod {name} --force`",
    )


def _unscheduled(pod: JSON, claims: list[JSON], workload: Workload) -> Problem | None:
    condition = next((c for c in pod.get("status", {}).get("conditions", []) if c["type"] == "PodScheduled"), None)
    if condition is None or condition["status"] != "False":
        return None
    told = condition.get("message", "")
    if workload.gpu and f"Insufficient {workload.gpu}" in told:
        return Problem(
            "InsufficientGPU",
            f"no node has enough free {workload.gpu}: add nodes or free some, or lower spec.serving.gpu.count ({told})",
        )
    if missing := re.search(r'persistentvolumeclaim "[^"]+" not found', told):
        return Problem("ReferenceNotFound", f"{missing[0]}: create it in this namespace, or mend the reference")
    if "PersistentVolumeClaim" in told or "persistent volume" in told or "persistentvolumeclaim" in told:
        return Problem("VolumePending", f"{_volume_remedy(claims, workload)} ({told})")
    return Problem("Unschedulable", f"no node takes the pod: see the resources of {workload.block} ({told})")


def _volume_remedy(claims: list[JSON], workload: Workload) -> str:
    pending = [claim for claim in claims if claim.get("status", {}).get("phase") != "Bound"]
    if not pending:
        return "the pod waits for its volume"
    name, wanted = pending[0]["metadata"]["name"], pending[0]["spec"].get("storageClassName")
    if not wanted:
        return (
            f"the claim {name} names no StorageClass and the cluster has no default one: mark a StorageClass as "
            f"default, or create this DiffusionCache anew with {workload.volume}.storageClassName"
        )
    return f"the claim {name} gets no volume from StorageClass {wanted}: is its provisioner there, and has it room?"


def _container_problem(pod: JSON, workload: Workload) -> Problem | None:
    status = pod.get("status", {})
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = container.get("state", {}).get("waiting", {})
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _IMAGE_REASONS:
            return Problem(
                "ImagePullFailed",
                f"the image {container['image']} cannot be had: check {workload.block}.image, and "
                f"spec.serving.pod.imagePullSecrets for a private registry ({message or reason})",
            )
        if reason == "CreateContainerConfigError":
            return Problem("ReferenceNotFound", f"{message}: create it in this namespace, or mend the reference")
        ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
        again = container in status.get("initContainerStatuses", []) and "running" in container.get("state", {})
        if ended and ended.get("exitCode") != 0 and not container.get("ready") and not again:
            return _ended(ended, container["name"], workload)
    return None


def _ended(ended: JSON, container: str, workload: Workload) -> Problem:
    if ended.get("reason") == "OOMKilled":
        return Problem(
            "OutOfMemory", f"{container} was killed for its memory: raise {workload.block}.resources.limits.memory"
        )
    told = parse_termination_message(ended.get("message", ""))
    if told is not None:
        return Problem(*told)
    code = ended.get("exitCode")
    return Problem("Crashed", f"{container} ended with status {code}: see `kubectl logs --previous` of its pod")


def _mount_problem(pod: JSON, events: list[JSON]) -> Problem | None:
    mine = [e for e in events if e["involvedObject"].get("uid") == pod["metadata"]["uid"]]
    failed = [e for e in mine if e.get("reason") in ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")]
    if not failed:
        return None
    message = failed[-1].get("message", "")
    if re.search(r'(secret|configmap|persistentvolumeclaim) "[^"]+" not found|references non-existent', message):
        return Problem("ReferenceNotFound", f"{message}: create it in this namespace, or mend the reference")
    return Problem("VolumeNotMounted", message)


def _refused_pod(workload: Workload, events: list[JSON]) -> Problem | None:
    mine = [e for e in events if e["involvedObject"].get("name") == workload.name]
    refused = [e for e in mine if e.get("reason") == "FailedCreate"]
    if not refused:
        return None
    return Problem("PodRefused", f"the cluster does not let the pod be made: {refused[-1].get('message', '')}")
