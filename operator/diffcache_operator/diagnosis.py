"""Why a pod does not come up, in words that say what to do. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from diffcache_core.reasons import Reason, parse_termination_message

JSON = dict[str, Any]

OVERDUE_SECONDS = 30.0  # after a deletionTimestamp, which holds the time to end in already
RETRY_SECONDS = 120.0
"""A download that has failed and runs again counts as failed for so long. Less, and one that fails each time turns from
failed to under way and back; more, and one that goes on well says later that it does."""

_IMAGE_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}


@dataclass(frozen=True)
class Problem:
    reason: str  # of a condition
    message: str
    in_spec: bool = False  # only a change of the spec helps


@dataclass(frozen=True)
class Workload:
    """Whose pods are looked at, and where in the resource a person mends them."""

    name: str  # of the StatefulSet
    block: str  # `spec.serving`
    volume: str  # `spec.cache.store.volume`
    gpu: str = ""  # the resource's name, if the pods want any
    image_remedy: str = ""  # what to do about an image that cannot be had; empty: the block's field `image`


def diagnose(
    workload: Workload, pods: Iterable[JSON], claims: Iterable[JSON], events: Iterable[JSON], now: str = ""
) -> Problem | None:
    """The first problem of the first pod that has one. `now`: RFC 3339; empty: nothing is overdue."""
    pods, claims, events = list(pods), list(claims), list(events)
    for pod in pods:
        if (leaving := pod["metadata"].get("deletionTimestamp")) is not None:
            problem = _lost(pod) if leaving < _before(now, OVERDUE_SECONDS) else None
        else:
            problem = (
                _unscheduled(pod, claims, workload)
                or _container_problem(pod, workload, _before(now, RETRY_SECONDS))
                or _mount_problem(pod, events)
            )
        if problem is not None:
            return problem
    return None if pods else refused_pod(workload, events)


def _before(now: str, seconds: float) -> str:
    """As the API server writes times."""
    if not now:
        return ""
    return (datetime.fromisoformat(now) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


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
    return Problem(
        "Unschedulable", f"no node takes the pod: see {workload.block}.resources and {workload.block}.pod ({told})"
    )


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


def _container_problem(pod: JSON, workload: Workload, settled: str) -> Problem | None:
    """`settled`: what has run since before then has got over its last failure."""
    status, name = pod.get("status", {}), pod["metadata"]["name"]
    first = status.get("initContainerStatuses", [])
    for container in [*first, *status.get("containerStatuses", [])]:
        state = container.get("state", {})
        reason, message = (state.get("waiting", {}).get(key, "") for key in ("reason", "message"))
        if reason in _IMAGE_REASONS:
            remedy = workload.image_remedy or f"check {workload.block}.image"
            return Problem(
                "ImagePullFailed",
                f"the image {container['image']} cannot be had: {remedy}; spec.serving.pod.imagePullSecrets is for a "
                f"private registry ({message or reason})",
                in_spec=reason == "InvalidImageName",
            )
        if reason == "CreateContainerConfigError":
            return Problem("ReferenceNotFound", f"{message}: create it in this namespace, or mend the reference")
        ended = state.get("terminated") or container.get("lastState", {}).get("terminated")
        again = container in first and state.get("running", {}).get("startedAt", settled) < settled
        if ended and ended.get("exitCode") != 0 and not container.get("ready") and not again:
            return _ended(ended, name, container["name"], workload)
    return None


def _ended(ended: JSON, pod: str, container: str, workload: Workload) -> Problem:
    if ended.get("reason") == "OOMKilled":
        return Problem(
            "OutOfMemory", f"{container} was killed for its memory: raise {workload.block}.resources.limits.memory"
        )
    told = parse_termination_message(ended.get("message", ""))
    if told is not None:
        reason, text = told
        return Problem(reason, text, in_spec=reason is Reason.MODEL_LOAD_FAILED)
    code = ended.get("exitCode")
    return Problem(
        "Crashed", f"{container} ended with status {code}: see `kubectl logs {pod} -c {container} --previous`"
    )


def _mount_problem(pod: JSON, events: list[JSON]) -> Problem | None:
    mine = [e for e in events if e["involvedObject"].get("uid") == pod["metadata"]["uid"]]
    failed = [e for e in mine if e.get("reason") in ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")]
    if not failed:
        return None
    message = failed[-1].get("message", "")
    if re.search(r'(secret|configmap|persistentvolumeclaim) "[^"]+" not found|references non-existent', message):
        return Problem("ReferenceNotFound", f"{message}: create it in this namespace, or mend the reference")
    return Problem("VolumeNotMounted", message)


_FIELDS = (
    (
        r"exceeded quota|failed quota|must specify|per (Container|Pod)|must be less than or equal to|limit range",
        "resources",
    ),
    (r"PriorityClass|priority class", "pod.priorityClassName"),
    (r"RuntimeClass|runtime class", "pod.runtimeClassName"),
    (r"tolerations?\b", "pod.tolerations"),
    (r"resource ?claim", "pod.resourceClaims"),
    (r"\.env\b|\benv\[", "pod.env"),
    (r"\blabels?\b", "pod.labels"),
    (r"\bannotations?\b", "pod.annotations"),
)
"""What an admission plugin or the API server says, and the field of the workload's block that it is about."""


def refused_pod(workload: Workload, events: list[JSON]) -> Problem | None:
    """What keeps a StatefulSet from making its pod."""
    mine = [e for e in events if e["involvedObject"].get("name") == workload.name]
    refused = [e for e in mine if e.get("reason") == "FailedCreate"]
    if not refused:
        return None
    told = refused[-1].get("message", "")
    return Problem(
        "PodRefused", f"the cluster does not let the pod be made: {_refusal_remedy(told, workload)} ({told})"
    )


def _refusal_remedy(told: str, workload: Workload) -> str:
    if "PodSecurity" in told:
        return "the pods keep to the profile `restricted`, so see what the namespace demands beyond it"
    if "persistentvolumeclaim" in told.lower():
        return f"see {workload.volume} and the namespace's quota of storage"
    field = next((field for pattern, field in _FIELDS if re.search(pattern, told, re.IGNORECASE)), "")
    if field == "resources" or not field:
        return f"see {workload.block}.resources and the namespace's quota and limits"
    return f"see {workload.block}.{field}"
