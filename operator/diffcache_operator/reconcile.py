"""One resource becomes what it should be: observe, tune, desired, converge, status."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from pydantic import ValidationError

from diffcache_core.kubernetes.metadata import ObjectView
from diffcache_core.resource.manifest import explain_validation
from diffcache_core.resource.spec import DiffusionCache, ScalingMode
from diffcache_core.resource.status import AutoscalingStatus, DiffusionCacheStatus, TuningStatus
from diffcache_core.tuning.record import followed, time_text
from diffcache_operator.clients.api import Api
from diffcache_operator.conditions import ConditionState, as_before
from diffcache_operator.converge import FORBIDDEN, Converged, Converger
from diffcache_operator.desired.children import child_references, desired_children
from diffcache_operator.desired.config import config_revision
from diffcache_operator.differences import includes
from diffcache_operator.images import Images, images_in_use
from diffcache_operator.metadata import JSON
from diffcache_operator.metrics import Metrics
from diffcache_operator.observe import observe, parse_resource, read_resource
from diffcache_operator.observed import Id, Observed
from diffcache_operator.plan import with_digest
from diffcache_operator.pod_figures import LOOK_SECONDS, PodFigures
from diffcache_operator.queue import GONE, Key
from diffcache_operator.scaling.loop import SCALING_ACTIVE, Scaler, ScalingReport
from diffcache_operator.served_schema import ServedSchema
from diffcache_operator.settings import Settings
from diffcache_operator.status import Facts, Halt, invalid_status, make_status
from diffcache_operator.status_writer import StatusWriter, is_empty
from diffcache_operator.tuning.conditions import switched_off
from diffcache_operator.tuning.loop import Tuned, Tuner
from diffcache_operator.volumes import growth, keep_claim_templates

URGENT_SECONDS = 10.0
"""Seconds until the next look while something is wrong that no watch reports: an event, an index that is down."""
ELSEWHERE_SECONDS = 30.0  # seconds between two looks at a resource that another operator serves


@dataclass
class _Memory:
    """What the operator remembers of one resource while it runs. After a restart this is empty: then a child that was
    deleted by hand is made again, but the status does not mention it."""

    children: frozenset[Id] = frozenset()  # the children that existed at the last look
    template: tuple[str, int] | None = None  # digest of the pod template, and the StatefulSet's generation that has it


@dataclass(frozen=True)
class _Desired:
    """What should exist. The last of `children` is the StatefulSet of serving pods."""

    children: list[JSON]
    images: Images

    @property
    def stateful_set(self) -> JSON:
        return self.children[-1]

    @property
    def config_revision(self) -> str:
        return config_revision(next(child for child in self.children if child["kind"] == "ConfigMap"))


@dataclass(frozen=True)
class _Loops:
    """What the loops of tuning and scaling report, for the status. The pods must follow `tuning`, too."""

    tuning: TuningStatus | None
    autoscaling: AutoscalingStatus | None
    conditions: list[ConditionState]


class StillHalted(Exception):
    """The operator could not apply its objects. The status says why, and a repetition may help.

    `forbidden`: a right is missing, or a quota or a policy refuses the call.
    """

    def __init__(self, halt: Halt) -> None:
        super().__init__(halt.problem.message)
        self.forbidden = halt.problem.reason == FORBIDDEN


class Reconciler:
    """Reconciles one resource at a time.

    `on_scaled(key)` asks the scaling loop to look after the resource. `on_progress(key)` is called after each action
    that was carried out. `may_write(namespace)` returns whether this operator, and no other, serves the namespace.
    """

    def __init__(
        self,
        api: Api,
        settings: Settings,
        metrics: Metrics,
        pod_figures: PodFigures,
        tuner: Tuner,
        scaler: Scaler,
        on_scaled: Callable[[Key], None],
        on_progress: Callable[[Key], None],
        may_write: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._api, self._settings, self._metrics = api, settings, metrics
        self._pod_figures, self._tuner, self._scaler = pod_figures, tuner, scaler
        self._on_scaled, self._may_write = on_scaled, may_write
        self._converger = Converger(api, metrics, on_progress)
        self._statuses = StatusWriter(api, metrics)
        self._schema = ServedSchema(api)
        self._memories: dict[Key, _Memory] = {}

    async def reconcile(self, key: Key) -> object:
        """Returns the seconds until the next look, or GONE. Raises ApiError or StillHalted if a repetition may help."""
        raw = await read_resource(self._api, *key)
        if raw is None or ObjectView.model_validate(raw).is_leaving:
            return self._forget(key)
        if not await self._may_write(key.namespace):
            return ELSEWHERE_SECONDS
        old = DiffusionCacheStatus.model_validate(raw.get("status", {}))
        try:
            resource = parse_resource(raw)
        except ValidationError as error:
            return await self._refuse(key, raw, old, error)
        self._wake_scaling(key, resource)
        observed = await self._observe(key, resource)
        if not self._pod_figures.is_known(key):
            return LOOK_SECONDS  # once its pods have answered or failed to, the key is queued again, before that
        tuned = self._tuner.look(resource, old, observed)
        raw = await self._announce(raw, old, tuned)
        loops = _loops(resource, old, tuned, self._scaler.report(key))
        desired = self._build_desired(resource, old, observed, loops.tuning)
        converged = await self._converge(key, resource, desired, observed)
        if converged.wrote:
            observed = await self._observe(key, resource)
        self._remember(key, desired, observed)
        facts = await self._collect_facts(key, resource, desired, observed, converged, loops)
        new = make_status(facts, old, time_text(time.time()))
        await self._statuses.report(key, raw, resource, old, new)
        return self._next_look(key, facts, new)

    def _forget(self, key: Key) -> object:
        """Forgets a deleted resource. Kubernetes deletes its children, because the resource owns them."""
        self._memories.pop(key, None)
        self._statuses.forget(key)
        self._tuner.forget(key)
        self._pod_figures.forget(key)
        self._metrics.caches.forget(*key)
        return GONE

    async def _refuse(self, key: Key, raw: JSON, old: DiffusionCacheStatus, error: ValidationError) -> float:
        """Writes into the status that the resource cannot be read. Its pods stay as they are."""
        message = f"this operator cannot read the resource: {explain_validation(error).strip()}"
        generation = raw["metadata"]["generation"]
        await self._statuses.write(key, raw, old, invalid_status(generation, message, old, time_text(time.time())))
        return self._settings.resync_seconds

    def _wake_scaling(self, key: Key, resource: DiffusionCache) -> None:
        if resource.spec.autoscaling.mode is ScalingMode.OPERATOR:
            self._on_scaled(key)

    async def _observe(self, key: Key, resource: DiffusionCache) -> Observed:
        """Returns what exists, with the last figures of the pods. From now on the pods that are ready now are asked."""
        observed = await observe(self._api, *key, child_references(resource))
        self._pod_figures.watch(key, (pod for pod in observed.pods if pod.is_ready))
        return replace(observed, figures=self._pod_figures.of(key))

    async def _announce(self, raw: JSON, old: DiffusionCacheStatus, tuned: Tuned | None) -> JSON:
        """Writes a new decision of the tuner into the status, and returns the resource as written.

        This happens before the pods learn the decision: if the operator crashes in between, the next one reads in the
        status what the pods follow.
        """
        if tuned is None or not tuned.moved:
            return raw
        return await self._statuses.replace(raw, old.model_copy(update={"tuning": tuned.record}))

    def _build_desired(
        self, resource: DiffusionCache, old: DiffusionCacheStatus, observed: Observed, record: TuningStatus | None
    ) -> _Desired:
        images = images_in_use(resource, old, observed, self._settings.images)
        children = desired_children(
            resource,
            images,
            self._settings.pods,
            pods_left=bool(observed.pods),
            tuning=followed(resource.spec, record),
        )
        return _Desired(keep_claim_templates(children, observed), images)

    async def _converge(self, key: Key, resource: DiffusionCache, desired: _Desired, observed: Observed) -> Converged:
        seen = self._memories.setdefault(key, _Memory()).children
        return await self._converger.converge(key, resource, desired.children, observed, seen)

    def _remember(self, key: Key, desired: _Desired, observed: Observed) -> None:
        memory = self._memories[key]
        memory.children = frozenset(one for one, child in observed.children.items() if child is not None)
        workload = observed.stateful_set(key.name)
        template = json.dumps(desired.stateful_set["spec"]["template"], sort_keys=True)
        digest = hashlib.sha256(template.encode()).hexdigest()
        if workload is not None and (memory.template is None or memory.template[0] != digest):
            memory.template = (digest, workload.metadata.generation)

    async def _collect_facts(
        self,
        key: Key,
        resource: DiffusionCache,
        desired: _Desired,
        observed: Observed,
        converged: Converged,
        loops: _Loops,
    ) -> Facts:
        default, workload = self._settings.serving_image, observed.child("StatefulSet", key.name)
        template = self._memories[key].template
        runs_another = desired.images.serving != default and resource.spec.serving.image is None
        return Facts(
            resource,
            observed,
            available_image=default if runs_another else "",
            config_revision=desired.config_revision,
            missing_fields=await self._schema.missing_fields(),
            halt=converged.halt,
            growth=growth(resource, observed, converged.refusals),
            applied=includes(workload, with_digest(desired.stateful_set)),
            template_generation=template[1] if workload is not None and template is not None else None,
            loops=loops.conditions,
            tuning=loops.tuning,
            autoscaling=loops.autoscaling,
            correction=converged.correction,
        )

    def _next_look(self, key: Key, facts: Facts, status: DiffusionCacheStatus) -> float:
        """Returns the seconds until the next look. Raises StillHalted if the queue is to retry with growing waits."""
        if facts.halt is not None and not facts.halt.stalled:
            raise StillHalted(facts.halt)
        wait = _wait(facts, status, self._settings.resync_seconds)
        self._pod_figures.pace(key, wait)
        is_asked = any(pod.is_ready for pod in facts.observed.pods)
        return self._settings.resync_seconds if is_asked else wait  # each round of figures queues the key, too


def _loops(
    resource: DiffusionCache, old: DiffusionCacheStatus, tuned: Tuned | None, report: ScalingReport | None
) -> _Loops:
    """Collects what the loops report. Until the scaling loop of this process reports, the old status stays valid."""
    tuning = switched_off(old.tuning) if tuned is None else tuned.record
    conditions = [] if tuned is None else [tuned.condition]
    if resource.spec.autoscaling.mode is not ScalingMode.OPERATOR:
        return _Loops(tuning, None, conditions)
    scaling = as_before(old, SCALING_ACTIVE) if report is None else report.condition
    autoscaling = old.autoscaling if report is None or report.last is None else report.last
    return _Loops(tuning, autoscaling, conditions if scaling is None else [*conditions, scaling])


def _wait(facts: Facts, status: DiffusionCacheStatus, resync_seconds: float) -> float:
    """Returns seconds. Watches report changes of children, but neither figures nor events nor objects of others."""
    conditions = {condition.type: condition.status for condition in status.conditions}
    down = "False" in [conditions.get(kind) for kind in ("Ready", "IndexReady", "LedgerReady", "StoreReady")]
    at_rest = facts.resource.spec.serving.replicas == 0 and not facts.observed.pods
    if down or "Reconciling" in conditions or (is_empty(status) and not at_rest):
        return URGENT_SECONDS
    return resync_seconds if at_rest else LOOK_SECONDS
