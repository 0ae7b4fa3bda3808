"""Which pod to ask, and what is the matter with one. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from diffcache.cluster.errors import ClusterError
from diffcache.cluster.objects import Resource
from diffcache_core.kubernetes.pods import ContainerStatus, Pod, Terminated

COMPONENT_LABEL, SERVING = "app.kubernetes.io/component", "serving"  # a Milvus beside them has another component
_USUAL = ("ContainerCreating", "PodInitializing")


def choose_pod(resource: Resource, pods: Sequence[Pod], status_command: str) -> str:
    """A ready serving pod's name. Raises ClusterError, saying why there is none and what to do."""
    serving = [pod for pod in pods if pod.metadata.labels.get(COMPONENT_LABEL) == SERVING]
    ready = sorted(pod.name for pod in serving if pod.is_ready)
    if ready:
        return ready[0]
    raise ClusterError(_why_none(resource, serving, status_command))


def _why_none(resource: Resource, serving: Sequence[Pod], status_command: str) -> str:
    name, ready = resource.name, resource.ready
    if ready is None:
        return f"no operator has looked at {name} yet: is diffcache's operator running in this cluster?"
    if resource.spec.serving.replicas == 0:
        return (
            f"{name} is scaled to zero: set spec.serving.replicas to 1, as by kubectl scale --replicas=1 dcache/{name}"
        )
    if ready.status == "True":
        return f"no pod of {name} is ready at the moment: try again, or see `{status_command}`"
    told = f"{name} is not ready: {ready.reason}: {ready.message.rstrip('.')}"
    # A pod may know more than the operator has seen.
    news = [f"{pod.name}: {what}" for pod in serving if ready.message not in (what := trouble(pod)) and what]
    return f"{'; '.join([told, *news])}. More: `{status_command}`"


def ready_containers(pod: Pod) -> str:
    return f"{sum(status.ready for status in pod.status.container_statuses)}/{len(pod.spec.containers)}"


def restarts(pod: Pod) -> int:
    return sum(status.restart_count for status in pod.status.all_containers)


def trouble(pod: Pod) -> str:
    """What keeps a pod from being ready, or ended it the last time; empty if nothing does."""
    if pod.is_leaving:
        return "is being deleted"
    if pod.status.reason:  # such as Evicted
        return _joined(pod.status.reason, pod.status.message)
    scheduled = pod.status.condition("PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        return _joined(scheduled.reason, scheduled.message)
    return next(
        filter(None, map(_container_trouble, pod.status.all_containers)), "" if pod.is_ready else "is not ready yet"
    )


def _container_trouble(container: ContainerStatus) -> str:
    waiting, now, last = container.state.waiting, container.state.terminated, container.last_state.terminated
    if waiting is not None and waiting.reason not in _USUAL:
        # Why it ended says more than that it will be tried again.
        return _joined(waiting.reason, _ending(last) if last is not None else waiting.message)
    if now is not None:
        return _ending(now) if now.exit_code != 0 else ""
    return f"the last run: {_ending(last)}" if last is not None else ""


def _ending(ended: Terminated) -> str:
    """A serving process that cannot start leaves `REASON: message`."""
    reason = "" if ended.reason in ("Error", "Completed") else f" ({ended.reason})"
    return _joined(f"ended with status {ended.exit_code}{reason}", ended.message.strip())


def _joined(*parts: str) -> str:
    return ": ".join(part for part in parts if part)
