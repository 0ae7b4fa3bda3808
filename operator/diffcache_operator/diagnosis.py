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


def diagnose(pods: Iterable[JSON], claims: Iterable[JSON], events: Iterable[JSON], gpu: str = "") -> Problem | None:
    """The first problem of the first pod that has one. `gpu`: the resource's name, if the pods want any."""
    pods, claims, events = list(pods), list(claims), list(events)
    for pod in pods:
        if "deletionTimestamp" in pod["metadata"]:
            continue
        problem = _unscheduled(pod, claims, gpu) or _container_problem(pod) or _mount_problem(pod, events)
        if problem is not None:
            return problem
    return None if pods else _refused_pod(events)


def _unscheduled(pod: JSON, claims: list[JSON], gpu: str) -> Problem | None:
    condition = next((c for c in pod.get("status", {}).get("conditions", []) if c["type"] == "PodScheduled"), None)
    if condition is None or condition["status"] != "False":
        return None
    told = condition.get("message", "")
    if gpu and f"Insufficient {gpu}" in told:
        return Problem(
            "InsufficientGPU",
            f"no node has enough free {gpu}: add nodes or free some, or lower spec.serving.gpu.count ({told})",
        )
    if missing := re.search(r'persistentvolumeclaim "[^"]+" not found', told):
        return Problem("ReferenceNotFound", f"{missing[0]}: create it in this namespace, or mend the reference")
    if "PersistentVolumeClaim" in told or "persistent volume" in told or "persistentvolumeclaim" in told:
        return Problem("VolumePending", f"{_volume_remedy(claims)} ({told})")
    return Problem("Unschedulable", f"no node takes the pod: see spec.serving.pod and spec.serving.resources ({told})")


def _volume_remedy(claims: list[JSON]) -> str:
    pending = [claim for claim in claims if claim.get("status", {}).get("phase") != "Bound"]
    if not pending:
        return "the pod waits for its volume"
    name, wanted = pending[0]["metadata"]["name"], pending[0]["spec"].get("storageClassName")
    if not wanted:
        return (
            f"the claim {name} names no StorageClass and the cluster has no default one: mark a StorageClass as "
            "default, or create this DiffusionCache anew with spec.cache.store.volume.storageClassName"
        )
    return f"the claim {name} gets no volume from StorageClass {wanted}: is its provisioner there, and has it room?"


def _container_problem(pod: JSON) -> Problem | None:
    status = pod.get("status", {})
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting = container.get("state", {}).get("waiting", {})
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _IMAGE_REASONS:
            return Problem(
                "ImagePullFailed",
                f"the image {container['image']} cannot be had: check spec.serving.image, and imagePullSecrets for a "
                f"private registry ({message or reason})",
            )
        if reason == "CreateContainerConfigError":
            return Problem("ReferenceNotFound", f"{message}: create it in this namespace, or mend the reference")
        ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get("terminated")
        again = container in status.get("initContainerStatuses", []) and "running" in container.get("state", {})
        if ended and ended.get("exitCode") != 0 and not container.get("ready") and not again:
            return _ended(ended, container["name"])
    return None


def _ended(ended: JSON, container: str) -> Problem:
    if ended.get("reason") == "OOMKilled":
        return Problem(
            "OutOfMemory", f"{container} was killed for its memory: raise spec.serving.resources.limits.memory"
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


def _refused_pod(events: list[JSON]) -> Problem | None:
    refused = [e for e in events if e.get("reason") == "FailedCreate"]
    if not refused:
        return None
    return Problem("PodRefused", f"the cluster does not let the pod be made: {refused[-1].get('message', '')}")
