"""Finds why a pod does not start, and says what to do, for conditions and the command line. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from diffcache_core.foreign import quoted
from diffcache_core.kubernetes.events import Event
from diffcache_core.kubernetes.pods import ContainerStatus, Pod, Terminated, Waiting
from diffcache_core.kubernetes.volume_claims import VolumeClaim
from diffcache_core.kubernetes.workloads import Workload
from diffcache_core.reasons import Reason, parse_termination_message

OVERDUE_SECONDS = 30.0  # seconds after the deletionTimestamp, which already includes the grace period
QUOTED_CHARACTERS = 300  # characters quoted of the last message of a process or its node; the rest is in the log
RETRY_SECONDS = 120.0
"""Seconds for which a download that failed and runs again still counts as failed. With less, a download that always
fails alternates between failed and running; with more, a successful retry is reported later."""

_IMAGE_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
_USUAL_REASONS = {"ContainerCreating", "PodInitializing"}
_MOUNT_REASONS = {"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"}  # reasons of events


@dataclass(frozen=True)
class Problem:
    reason: str  # the reason of a condition
    message: str
    in_spec: bool = False  # only a change of the spec helps


def diagnose(
    workload: Workload,
    pods: Sequence[Pod],
    claims: Sequence[VolumeClaim],
    events: Sequence[Event],
    now: datetime,
) -> Problem | None:
    """Returns the first problem of the first pod that has one, or why there is no pod; None if there is no problem."""
    problems = (diagnose_pod(workload, pod, claims, events, now) for pod in pods)
    return next(filter(None, problems), None) if pods else refused_pod(workload, events)


def diagnose_pod(
    workload: Workload, pod: Pod, claims: Sequence[VolumeClaim], events: Sequence[Event], now: datetime
) -> Problem | None:
    """Returns what prevents a pod from starting or from ending; None for states that pass by themselves, such as a
    model that loads."""
    if (leaving := pod.metadata.deletion_timestamp) is not None:
        return _lost(pod) if leaving < now - timedelta(seconds=OVERDUE_SECONDS) else None
    return (
        _ended_by_node(pod)
        or _unscheduled(pod, claims, workload)
        or _container_problem(pod, workload, now)
        or _mount_problem(pod, events)
    )


def _lost(pod: Pod) -> Problem:
    """Returns the problem of a pod on a lost node. Only the node can report the pod's end, and until then the
    StatefulSet creates no new pod."""
    name, node = pod.name, pod.spec.node_name
    return Problem(
        "NodeLost",
        f"the pod {name} should have ended, and node {node} does not say so: bring the node back; or, if it is gone "
        f"for good, taint it node.kubernetes.io/out-of-service or `kubectl delete pod {name} --force`",
    )


def _ended_by_node(pod: Pod) -> Problem | None:
    """Returns the problem if the node ended or refused the pod, for example because it lacks disk or memory, or a
    device is broken."""
    if pod.status.phase != "Failed":
        return None
    why = ": ".join(filter(None, (pod.status.reason, pod.status.message)))
    return Problem(
        "PodEnded", f"node {pod.spec.node_name} has ended the pod {pod.name}: {quoted(why, QUOTED_CHARACTERS)}"
    )


def _unscheduled(pod: Pod, claims: Sequence[VolumeClaim], workload: Workload) -> Problem | None:
    condition = pod.status.condition("PodScheduled")
    if condition is None or condition.status != "False":
        return None
    text = condition.message
    if workload.gpu and f"Insufficient {workload.gpu}" in text:
        return Problem(
            "InsufficientGPU",
            f"no node has enough free {workload.gpu}: add nodes or free some, or lower spec.serving.gpu.count ({text})",
        )
    if missing := re.search(r'persistentvolumeclaim "[^"]+" not found', text):
        return Problem("ReferenceNotFound", f"{missing[0]}: create it in this namespace, or mend the reference")
    if "PersistentVolumeClaim" in text or "persistent volume" in text or "persistentvolumeclaim" in text:
        return Problem("VolumePending", f"{_volume_remedy(claims, workload)} ({text})")
    return Problem(
        "Unschedulable", f"no node takes the pod: see {workload.block}.resources and {workload.block}.pod ({text})"
    )


def _volume_remedy(claims: Sequence[VolumeClaim], workload: Workload) -> str:
    pending = [claim for claim in claims if not claim.is_bound]
    if not pending:
        return "the pod waits for its volume"
    name, wanted = pending[0].name, pending[0].spec.storage_class_name
    if not wanted:
        return (
            f"the claim {name} names no StorageClass and the cluster has no default one: mark a StorageClass as "
            f"default, or create this DiffusionCache anew with {workload.volume}.storageClassName"
        )
    return f"the claim {name} gets no volume from StorageClass {wanted}: is its provisioner there, and has it room?"


def _container_problem(pod: Pod, workload: Workload, now: datetime) -> Problem | None:
    for container in pod.status.all_containers:
        waiting = container.state.waiting or Waiting()
        reason, message = waiting.reason, waiting.message
        if reason in _IMAGE_REASONS:
            remedy = workload.image_remedy or f"check {workload.block}.image"
            return Problem(
                "ImagePullFailed",
                f"the image {container.image} cannot be had: {remedy}; spec.serving.pod.imagePullSecrets is for a "
                f"private registry ({message or reason})",
                in_spec=reason == "InvalidImageName",
            )
        if reason == "CreateContainerConfigError":
            return Problem("ReferenceNotFound", f"{message}: create it in this namespace, or mend the reference")
        ended = container.ending
        again = container in pod.status.init_container_statuses and _is_settled(container, now)
        if ended is not None and ended.exit_code != 0 and not container.ready and not again:
            return _ended(ended, pod.name, container.name, workload)
        if reason and reason not in _USUAL_REASONS:
            return Problem("ContainerNotStarted", f"{container.name} is not started: {reason}: {message}")
    return None


def _is_settled(container: ContainerStatus, now: datetime) -> bool:
    """Returns whether the container has run for RETRY_SECONDS, so that its last failure no longer counts."""
    since = container.state.running.started_at if container.state.running is not None else None
    return since is not None and since < now - timedelta(seconds=RETRY_SECONDS)


def _ended(ended: Terminated, pod: str, container: str, workload: Workload) -> Problem:
    if ended.reason == "OOMKilled":
        return Problem(
            "OutOfMemory", f"{container} was killed for its memory: raise {workload.block}.resources.limits.memory"
        )
    parsed = parse_termination_message(ended.message)
    if parsed is not None:
        reason, text = parsed
        return Problem(reason, text, in_spec=reason is Reason.MODEL_LOAD_FAILED)
    return Problem(
        "Crashed", f"{container} {describe_ending(ended)}: see `kubectl logs {pod} -c {container} --previous`"
    )


def describe_ending(ended: Terminated) -> str:
    """Returns `ended with status 128 (StartError): last words`."""
    reason = f" ({ended.reason})" if ended.reason not in ("", "Error", "Completed") else ""
    words = quoted(ended.message, QUOTED_CHARACTERS)
    return f"ended with status {ended.exit_code}{reason}" + (f": {words}" if words else "")


def _mount_problem(pod: Pod, events: Sequence[Event]) -> Problem | None:
    mine = [event for event in events if event.involved_object.uid == pod.metadata.uid]
    failed = [event for event in mine if event.reason in _MOUNT_REASONS]
    if not failed:
        return None
    message = failed[-1].message
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
"""Patterns of messages of an admission plugin or the API server, and the field of the workload's block that each is
about."""


def refused_pod(workload: Workload, events: Sequence[Event]) -> Problem | None:
    """Returns what prevents a StatefulSet from creating its pod; None if no event reports that."""
    mine = [event for event in events if event.involved_object.name == workload.name]
    refused = [event for event in mine if event.reason == "FailedCreate"]
    if not refused:
        return None
    text = refused[-1].message
    return Problem(
        "PodRefused", f"the cluster does not let the pod be made: {_refusal_remedy(text, workload)} ({text})"
    )


def _refusal_remedy(text: str, workload: Workload) -> str:
    if "PodSecurity" in text:
        return "the pods keep to the profile `restricted`, so see what the namespace demands beyond it"
    if "persistentvolumeclaim" in text.lower():
        return f"see {workload.volume} and the namespace's quota of storage"
    field = next((field for pattern, field in _FIELDS if re.search(pattern, text, re.IGNORECASE)), "")
    if field == "resources" or not field:
        return f"see {workload.block}.resources and the namespace's quota and limits"
    return f"see {workload.block}.{field}"
