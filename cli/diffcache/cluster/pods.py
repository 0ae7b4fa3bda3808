"""Chooses a pod to call, and explains what is wrong with a pod. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from diffcache.cluster.errors import ClusterError
from diffcache.cluster.objects import Resource
from diffcache_core.kubernetes.diagnosis import Problem, describe_ending, diagnose_pod
from diffcache_core.kubernetes.pods import Pod
from diffcache_core.kubernetes.volume_claims import VolumeClaim
from diffcache_core.kubernetes.workloads import (
    COMPONENT_LABEL,
    INDEX,
    LEDGER,
    SERVING,
    Workload,
    index_workload,
    ledger_workload,
    serving_workload,
)


def choose_pod(resource: Resource, pods: Sequence[Pod], status_command: str, now: datetime) -> str:
    """Returns the name of a ready serving pod. If there is none, raises ClusterError with the reason and what to do."""
    serving = [pod for pod in pods if pod.metadata.labels.get(COMPONENT_LABEL) == SERVING]
    ready = sorted(pod.name for pod in serving if pod.is_ready)
    if ready:
        return ready[0]
    raise ClusterError(_why_none(resource, serving, status_command, now))


def _why_none(resource: Resource, serving: Sequence[Pod], status_command: str, now: datetime) -> str:
    name, ready = resource.name, resource.ready
    if ready is None:
        return f"no operator has looked at {name} yet: is diffcache's operator running in this cluster?"
    if resource.spec.serving.replicas == 0:
        return (
            f"{name} is scaled to zero: set spec.serving.replicas to 1, as by kubectl scale --replicas=1 dcache/{name}"
        )
    if ready.status == "True":
        return f"no pod of {name} is ready at the moment: try again, or see `{status_command}`"
    text = f"{name} is not ready: {ready.reason}: {ready.message.rstrip('.')}"
    # A pod may show more than the operator has seen so far.
    more = [f"{pod.name}: {what}" for pod in serving if (what := news(pod, resource, (), now))]
    return f"{'; '.join([text, *more])}. More: `{status_command}`"


def ready_containers(pod: Pod) -> str:
    return f"{sum(status.ready for status in pod.status.container_statuses)}/{len(pod.spec.containers)}"


def restarts(pod: Pod) -> int:
    return sum(status.restart_count for status in pod.status.all_containers)


def trouble(pod: Pod, resource: Resource, claims: Sequence[VolumeClaim], now: datetime) -> str:
    """Returns why a pod is not ready, or why its last run ended. Returns an empty string if there is no problem."""
    problem = _problem(pod, resource, claims, now)
    return f"{problem.reason}: {problem.message}" if problem is not None else _passing(pod)


def news(pod: Pod, resource: Resource, claims: Sequence[VolumeClaim], now: datetime) -> str:
    """Returns the same as `trouble`, but an empty string if a condition of the resource already says it."""
    problem = _problem(pod, resource, claims, now)
    is_shown = problem is not None and any(
        problem.message in condition.message for condition in resource.status.conditions
    )
    return "" if is_shown else trouble(pod, resource, claims, now)


def _problem(pod: Pod, resource: Resource, claims: Sequence[VolumeClaim], now: datetime) -> Problem | None:
    return diagnose_pod(_workload(pod, resource), pod, claims, (), now)


def _workload(pod: Pod, resource: Resource) -> Workload:
    component = pod.metadata.labels.get(COMPONENT_LABEL)
    if component == INDEX:
        return index_workload(resource.name)
    if component == LEDGER:
        return ledger_workload(resource.name)
    serving = resource.spec.serving
    return serving_workload(resource.name, serving.gpu.wanted, serving.image, resource.new_choice)


def _passing(pod: Pod) -> str:
    if pod.is_leaving:
        return "is being deleted"
    if not pod.is_ready:
        return "is not ready yet"
    endings = (container.last_state.terminated for container in pod.status.all_containers)
    return next((f"the last run {describe_ending(ended)}" for ended in endings if ended is not None), "")
