"""Pods and their containers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from diffcache_core.kubernetes.metadata import ObjectView
from diffcache_core.kubernetes.view import Condition, Time, View


class Running(View):
    started_at: Time = None


class Waiting(View):
    reason: str = ""
    message: str = ""


class Terminated(View):
    reason: str = ""
    message: str = ""
    exit_code: int = 0


class State(View):
    running: Running | None = None
    waiting: Waiting | None = None
    terminated: Terminated | None = None


class ContainerStatus(View):
    name: str
    image: str = ""
    ready: bool = False
    restart_count: int = 0
    state: State = State()
    last_state: State = State()

    @property
    def ending(self) -> Terminated | None:
        """How this run of the container ended, or else the one before."""
        return self.state.terminated or self.last_state.terminated


class PodStatus(View):
    phase: str = ""
    reason: str = ""
    message: str = ""
    pod_ip: Annotated[str, Field(alias="podIP")] = ""
    conditions: tuple[Condition, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()

    def condition(self, kind: str) -> Condition | None:
        return next((condition for condition in self.conditions if condition.type == kind), None)

    @property
    def all_containers(self) -> tuple[ContainerStatus, ...]:
        """Statuses of all containers, in the order in which they start."""
        return (*self.init_container_statuses, *self.container_statuses)


class Container(View):
    name: str = ""
    image: str = ""


class PodSpec(View):
    node_name: str = ""
    containers: tuple[Container, ...] = ()


class Pod(ObjectView):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def is_ready(self) -> bool:
        """True if the pod is ready, has an address, and is not being deleted."""
        ready = self.status.condition("Ready")
        return ready is not None and ready.status == "True" and bool(self.status.pod_ip) and not self.is_leaving

    @property
    def is_running(self) -> bool:
        return any(container.state.running is not None for container in self.status.container_statuses)

    @property
    def is_stuck(self) -> bool:
        """True while the pod is on a node and its containers are being created: for a moment, or until a missing Secret
        exists."""
        states = [container.state.waiting for container in self.status.all_containers]
        reasons = {waiting.reason if waiting is not None else "" for waiting in states}
        return self.status.phase == "Pending" and reasons in ({"ContainerCreating"}, {"PodInitializing"})

    @property
    def revision(self) -> str:
        """The revision of the template from which its StatefulSet created it."""
        return self.metadata.labels.get("controller-revision-hash", "")
