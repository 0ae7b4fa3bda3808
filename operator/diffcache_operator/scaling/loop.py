"""The operator's own scaling loop: it reads the pods' metrics and writes `/scale`. It does not use Prometheus.

It runs beside the reconciles, in a queue of its own, and writes only the replicas. Its report waits here until the
reconcile, the only writer of the status, fetches it.
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
"""Seconds between two looks at a cache's pods. A lower value sees a peak sooner and costs the API server two calls each
time."""
RACE_SECONDS = 1.0
"""Seconds until the next look if somebody else wrote the resource between our look and our write."""
REFUSED_SECONDS = 60.0
"""Seconds until the next look after a refusal: only a change of the spec, or of a right, helps."""
BLIND = ("NoPod", "NoData", "BadData", "ClockJump")
BLIND_SECONDS = 30.0
"""Seconds of looks without an answer before the condition reports it."""
MEMORY_SECONDS = 60.0
"""Seconds over which the busy share and the seconds per step are averaged: the length of several requests."""


@dataclass(frozen=True)
class ScalingReport:
    """What the loop reports for the status. `last`: its last change; None if it made none since the operator
    started."""

    condition: ConditionState
    last: AutoscalingStatus | None = None


@dataclass
class _Memory:
    seen: deque[Snapshot] = field(default_factory=deque)
    wanted: tuple[Look, ...] = ()
    blind_since: float | None = None  # monotonic seconds since when every look has failed; None: the last one succeeded
    report: ScalingReport | None = None


class Scaler:
    """The scaling loop. Its queue calls `step`; it calls `on_news(key)` when the report changes."""

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
        """Returns the seconds until the next look, or GONE for a resource that this loop does not scale. Raises
        ApiError."""
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
        """Returns whether looks have failed for longer than a pod that hangs for a moment explains."""
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
            )  # a message of "True" states the spec, whose numbers matter
            last = last or before.last
        memory.report = ScalingReport(condition, last)
        if memory.report != before:
            self._on_news(key)


def _following(resource: DiffusionCache) -> ConditionState:
    """Makes the condition of a loop at work. It names no current figures: the pods' own metrics have those."""
    spec = resource.spec.autoscaling
    text = (
        f"{spec.min_replicas} to {spec.max_replicas} pods follow the work that waits: "
        f"{spec.target_backlog_seconds} s of it a pod are aimed at"
    )
    return ConditionState(SCALING_ACTIVE, "True", "Following", text)


def _asleep(resource: DiffusionCache) -> ConditionState | None:
    """Returns a condition if replicas is 0: only a person changes that, as with the horizontal pod autoscaler."""
    if resource.spec.serving.replicas > 0:
        return None
    wakes = f"`kubectl scale dcache {resource.metadata.name} --replicas=1` wakes it"
    return ConditionState(SCALING_ACTIVE, "False", "ScaledToZero", f"replicas is 0, so the cache sleeps: {wakes}")


def _overruled(resource: Metadata, wrote: bool) -> ConditionState | None:
    """Returns a condition if another autoscaler wrote the replicas after this loop had written. If this loop never
    wrote, it takes over from the other one."""
    other = other_scaler(resource)
    if not wrote or other is None:
        return None
    text = (
        f"{other} scales this cache, too (a HorizontalPodAutoscaler or KEDA?), so the operator keeps out: delete the "
        "other one, then set autoscaling.mode to Disabled and to Operator again; or leave it Disabled"
    )
    return ConditionState(SCALING_ACTIVE, "False", "OtherScaler", text)


def _parsed(raw: JSON) -> DiffusionCache | None:
    """Parses a resource. Returns None if it is being deleted or cannot be read; the reconcile reports the latter."""
    if ObjectView.model_validate(raw).is_leaving:
        return None
    try:
        return parse_resource(raw)
    except ValidationError:
        return None
