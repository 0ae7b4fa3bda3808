"""The operator's own scaling loop: pods' metrics in, `/scale` out. Prometheus has no part in it.

It runs beside the reconciles, in a queue of its own, and writes nothing but the replicas. What it has to report waits
here until the reconcile, which is the status' only writer, fetches it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from diffcache_core.kubernetes.metadata import Metadata, ObjectView
from diffcache_core.resource.spec import DiffusionCache, ScalingMode
from diffcache_core.resource.status import AutoscalingStatus
from diffcache_core.scaling import Look, Scaling, bounds_of, scale
from diffcache_core.tuning.record import time_text
from diffcache_operator.clients.api import Api, ApiError
from diffcache_operator.clients.scrape import Scraper
from diffcache_operator.conditions import ConditionState
from diffcache_operator.metadata import JSON
from diffcache_operator.observe import parse_resource, read_pods, read_resource
from diffcache_operator.observed import made_by
from diffcache_operator.queue import GONE, Key
from diffcache_operator.scaling.owner import other_scaler
from diffcache_operator.scaling.work import NAMES, Snapshot, load_of, parse

SCALING_ACTIVE = "ScalingActive"

LOOK_SECONDS = 5.0
"""Between two looks at a cache's pods. Shorter sees a peak sooner and costs the API server two calls each time."""
RACE_SECONDS = 1.0
"""After somebody else has written the resource between our look and our write."""
REFUSED_SECONDS = 60.0
"""After a refusal: only a change of the spec, or of a right, helps."""
BLIND = ("NoPod", "NoData", "BadData", "ClockJump")
BLIND_SECONDS = 30.0
"""Of looks without an answer, before the condition says so."""
MEMORY_SECONDS = 60.0
"""Over which busy shares and seconds a step are averaged: several requests long."""


@dataclass(frozen=True)
class ScalingReport:
    """For the status. `last`: the last change that the loop made; None: none since the operator began."""

    condition: ConditionState
    last: AutoscalingStatus | None = None


@dataclass
class _Memory:
    seen: deque[Snapshot] = field(default_factory=deque)
    wanted: tuple[Look, ...] = ()
    blind_since: float | None = None  # no look since then has found anything
    report: ScalingReport | None = None


class Scaler:
    """`step` is what its queue calls. `on_news(key)`: there is something new to report."""

    def __init__(
        self,
        api: Api,
        scraper: Scraper,
        on_news: Callable[[Key], None],
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._scraper, self._on_news, self._stopwatch = api, scraper, on_news, stopwatch
        self._memories: dict[Key, _Memory] = {}

    def report(self, key: Key) -> ScalingReport | None:
        memory = self._memories.get(key)
        return None if memory is None else memory.report

    async def step(self, key: Key) -> object:
        """Seconds until the next look, or GONE for a resource that is not to be scaled. Raises ApiError."""
        raw = await read_resource(self._api, *key)
        resource = None if raw is None else _parsed(raw)
        if raw is None or resource is None or resource.spec.autoscaling.mode is not ScalingMode.OPERATOR:
            self._memories.pop(key, None)
            return GONE
        memory = self._memories.setdefault(key, _Memory())
        metadata = Metadata.model_validate(raw["metadata"])
        wrote = "autoscaling" in raw.get("status", {}) or (memory.report is not None and memory.report.last is not None)
        obstacle = _asleep(resource) or _overruled(metadata, wrote)
        if obstacle is not None:
            memory.seen.clear()
            memory.wanted = ()
            self._report(key, memory, obstacle)
            return LOOK_SECONDS
        scaling = await self._decide(key, resource, memory)
        if scaling.replicas != resource.spec.serving.replicas:
            return await self._write(key, resource, metadata.resource_version, memory, scaling)
        if self._is_blind(memory, scaling):
            self._report(key, memory, ConditionState(SCALING_ACTIVE, "False", scaling.reason, scaling.message))
        elif memory.blind_since is None:
            self._report(key, memory, _following(resource))
        return LOOK_SECONDS

    def _is_blind(self, memory: _Memory, scaling: Scaling) -> bool:
        """For longer than a pod that hangs for a moment would make it."""
        now = self._stopwatch()
        if scaling.reason not in BLIND:
            memory.blind_since = None
            return False
        memory.blind_since = now if memory.blind_since is None else memory.blind_since
        return now - memory.blind_since >= BLIND_SECONDS

    async def _decide(self, key: Key, resource: DiffusionCache, memory: _Memory) -> Scaling:
        pods = await read_pods(self._api, *key)
        ready = [pod for pod in made_by(pods, key.name) if pod.is_ready]
        addresses = [pod.status.pod_ip for pod in ready]
        answers = await self._scraper.scrape(key.namespace, addresses, NAMES, parse)
        at = self._stopwatch()
        known = {pod.metadata.uid: work for pod, work in zip(ready, answers, strict=True) if work is not None}
        memory.seen.append(Snapshot(at, known))
        while memory.seen[0].at < at - MEMORY_SECONDS:
            memory.seen.popleft()
        current = resource.spec.serving.replicas
        scaling = scale(current, load_of(memory.seen, len(ready)), memory.wanted, bounds_of(resource.spec.autoscaling))
        memory.wanted = scaling.wanted
        if scaling.reason == "NoData" and not ready:
            return replace(scaling, reason="NoPod", message=f"stays at {current}: no pod is ready")
        if scaling.reason == "Down" and len(known) < len(ready):
            text = f"stays at {current}: {len(ready) - len(known)} of {len(ready)} ready pods do not report their work"
            return Scaling(current, "NoData", text, scaling.wanted)
        return scaling

    async def _write(
        self, key: Key, resource: DiffusionCache, version: str, memory: _Memory, scaling: Scaling
    ) -> float:
        try:
            await self._api.scale(*key, scaling.replicas, version)
        except ApiError as error:
            if error.status == 409:
                return RACE_SECONDS
            if error.status not in (400, 403, 422):
                raise
            text = f"the API server refuses {scaling.replicas} replicas: {error}"
            self._report(key, memory, ConditionState(SCALING_ACTIVE, "False", "Refused", text))
            return REFUSED_SECONDS
        last = AutoscalingStatus(replicas=scaling.replicas, message=scaling.message[:1024], time=time_text(time.time()))
        self._report(key, memory, _following(resource), last)
        return LOOK_SECONDS

    def _report(
        self, key: Key, memory: _Memory, condition: ConditionState, last: AutoscalingStatus | None = None
    ) -> None:
        before = memory.report
        if before is not None:
            condition = (
                condition if condition.status == "True" else condition.steady(before.condition)
            )  # the former is about the spec
            last = last or before.last
        memory.report = ScalingReport(condition, last)
        if memory.report != before:
            self._on_news(key)


def _following(resource: DiffusionCache) -> ConditionState:
    """Without the figures of the moment: the pods' own metrics have those."""
    spec = resource.spec.autoscaling
    text = (
        f"{spec.min_replicas} to {spec.max_replicas} pods follow the work that waits: "
        f"{spec.target_backlog_seconds} s of it a pod are aimed at"
    )
    return ConditionState(SCALING_ACTIVE, "True", "Following", text)


def _asleep(resource: DiffusionCache) -> ConditionState | None:
    """0 is a person's to write, as for the horizontal pod autoscaler."""
    if resource.spec.serving.replicas > 0:
        return None
    wakes = f"`kubectl scale dcache {resource.metadata.name} --replicas=1` wakes it"
    return ConditionState(SCALING_ACTIVE, "False", "ScaledToZero", f"replicas is 0, so the cache sleeps: {wakes}")


def _overruled(resource: Metadata, wrote: bool) -> ConditionState | None:
    """Another autoscaler has written after this loop had. What it wrote before is ours to take over."""
    other = other_scaler(resource)
    if not wrote or other is None:
        return None
    text = (
        f"{other} scales this cache, too (a HorizontalPodAutoscaler or KEDA?), so the operator keeps out: delete the "
        "other one, then set autoscaling.mode to Disabled and to Operator again; or leave it Disabled"
    )
    return ConditionState(SCALING_ACTIVE, "False", "OtherScaler", text)


def _parsed(raw: JSON) -> DiffusionCache | None:
    """None: it is on its way out, or this operator cannot read it, which the reconcile reports."""
    if ObjectView.model_validate(raw).is_leaving:
        return None
    try:
        return parse_resource(raw)
    except ValidationError:
        return None
