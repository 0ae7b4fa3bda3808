"""One resource becomes what it should be: observe, desired, plan, apply, status."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from pydantic import ValidationError

from diffcache_core.foreign import quoted
from diffcache_core.kubernetes.diagnosis import Problem
from diffcache_core.resource.manifest import explain_validation
from diffcache_core.resource.spec import DiffusionCache, ScalingMode
from diffcache_core.resource.status import AutoscalingStatus, DiffusionCacheStatus, TuningStatus
from diffcache_core.tuning.record import followed, time_text
from diffcache_operator.apply import carry_out
from diffcache_operator.claims import Claim, as_before
from diffcache_operator.clients.api import Api, ApiError
from diffcache_operator.desired.children import desired_children
from diffcache_operator.desired.config import config_revision
from diffcache_operator.differences import includes
from diffcache_operator.events import turns
from diffcache_operator.images import Images, images_in_use
from diffcache_operator.metadata import JSON
from diffcache_operator.metrics import Metrics
from diffcache_operator.observe import observe, read_resource
from diffcache_operator.observed import Id, Observed
from diffcache_operator.plan import Action, Apply, Obstacle, plan, plan_owners, with_digest
from diffcache_operator.pod_figures import LOOK_SECONDS, PodFigures
from diffcache_operator.queue import GONE, Key
from diffcache_operator.scaling.loop import SCALING_ACTIVE, Scaler
from diffcache_operator.schema import missing_fields
from diffcache_operator.settings import Settings
from diffcache_operator.status import Facts, Halt, invalid_status, make_status
from diffcache_operator.tuning.loop import Tuner
from diffcache_operator.tuning.tell import switched_off
from diffcache_operator.volumes import growth, keep_claim_templates, plan_volumes

log = logging.getLogger("diffcache.reconcile")

FORBIDDEN = "Forbidden"

FIGURES_SECONDS = 60.0  # between two writes of a status in which only figures have moved
URGENT_SECONDS = 10.0  # the same while something is the matter that no watch tells of: an event, an index that is down
ELSEWHERE_SECONDS = 30.0  # between two looks at a resource that another operator serves
SCHEMA_SECONDS = 60.0  # for which an answer about the CRD holds


@dataclass
class _Memory:
    """What is only worth something while the operator runs; losing it costs a write or a read."""

    figures_written: dict[Key, float]
    templates: dict[Key, tuple[str, int]]  # digest of the pod template, and the StatefulSet's generation that has it
    children: dict[Key, frozenset[Id]]  # that were there at the last look
    schema: tuple[float, list[str]] = (float("-inf"), [])


@dataclass(frozen=True)
class _Look:
    """What should be, and what is."""

    desired: list[JSON]  # the StatefulSet of serving pods is the last
    observed: Observed
    images: Images


@dataclass(frozen=True)
class _Acted:
    """How many actions were carried out, what stopped the others, and what of it somebody had done by hand."""

    done: int
    halt: Halt | None = None
    corrections: tuple[str, ...] = ()


class StillHalted(Exception):
    """The status says why; a repetition may help. `forbidden`: a right is missing, or a quota or a policy says no."""

    def __init__(self, halt: Halt) -> None:
        super().__init__(halt.problem.message)
        self.forbidden = halt.problem.reason == FORBIDDEN


class Reconciler:
    """`on_scaled(key)`: the scaling loop is to look after a resource. `on_progress(key)`: an action was carried out.
    `may_write(namespace)`: no other operator serves it."""

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
        self._on_scaled, self._on_progress = on_scaled, on_progress
        self._may_write = may_write
        self._memory = _Memory({}, {}, {})

    async def reconcile(self, key: Key) -> object:
        """Seconds until the next look, or GONE. Raises ApiError or StillHalted for what a repetition may cure."""
        raw = await read_resource(self._api, *key)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            self._memory.figures_written.pop(key, None)
            self._memory.templates.pop(key, None)
            self._memory.children.pop(key, None)
            self._tuner.forget(key)
            self._pod_figures.forget(key)
            self._metrics.caches.forget(*key)
            return GONE  # children go by ownership, whether we run or not
        if not await self._may_write(key.namespace):
            return ELSEWHERE_SECONDS
        old = DiffusionCacheStatus.model_validate(raw.get("status", {}))
        try:
            resource = DiffusionCache.model_validate({name: value for name, value in raw.items() if name != "status"})
        except ValidationError as error:
            message = f"this operator cannot read the resource: {explain_validation(error).strip()}"
            generation = raw["metadata"]["generation"]
            await self._write_status(key, raw, old, invalid_status(generation, message, old, time_text(time.time())))
            return self._settings.resync_seconds
        if resource.spec.autoscaling.mode is ScalingMode.OPERATOR:
            self._on_scaled(key)
        look = await self._look(resource, old)
        if not self._pod_figures.is_known(key):
            return LOOK_SECONDS  # what its pods tell first, or fail to tell, brings it back before that
        tuned = self._tuner.look(resource, old, look.observed)
        if tuned is not None and tuned.moved:
            # Before the pods are told: whoever goes on from here after a crash has to know what they follow.
            raw = await self._replace_status(raw, old.model_copy(update={"tuning": tuned.record}))
        record = switched_off(old.tuning) if tuned is None else tuned.record
        facts = replace(
            await self._converge(resource, old, look, record),
            tuning=record,
            autoscaling=self._last_scaling(key, resource, old),
            loops=[*([] if tuned is None else [tuned.claim]), *self._scaling_claims(key, resource, old)],
        )
        new = make_status(replace(facts, missing_fields=await self._missing_fields()), old, time_text(time.time()))
        self._metrics.caches.tell(resource, new)
        if await self._write_status(key, raw, old, new):
            for event in turns(resource, old, new, time_text(time.time())):
                log.info("%s/%s: %s: %s", *key, event["reason"], event["message"])
                await self._api.create(event)
        if facts.halt is not None and not facts.halt.stalled:
            raise StillHalted(facts.halt)  # again, with growing waits
        wait = _next_look(facts, new, self._settings.resync_seconds)
        asked = any(pod.is_ready for pod in facts.observed.pods)
        self._pod_figures.pace(key, wait)
        return self._settings.resync_seconds if asked else wait  # each round of what pods tell brings it back, too

    def _scaling_claims(self, key: Key, resource: DiffusionCache, old: DiffusionCacheStatus) -> list[Claim]:
        """What the scaling loop said last; before it has said anything, what it said to the operator before us."""
        if resource.spec.autoscaling.mode is not ScalingMode.OPERATOR:
            return []
        told = self._scaler.told(key)
        claim = as_before(old, SCALING_ACTIVE) if told is None else told.claim
        return [] if claim is None else [claim]

    def _last_scaling(self, key: Key, resource: DiffusionCache, old: DiffusionCacheStatus) -> AutoscalingStatus | None:
        if resource.spec.autoscaling.mode is not ScalingMode.OPERATOR:
            return None
        told = self._scaler.told(key)
        return old.autoscaling if told is None or told.last is None else told.last

    async def _converge(
        self, resource: DiffusionCache, old: DiffusionCacheStatus, look: _Look, record: TuningStatus | None
    ) -> Facts:
        """Makes the children what they should be, and tells what is there afterwards."""
        key = Key(resource.metadata.namespace, resource.metadata.name)
        seen = self._memory.children.get(key, frozenset())
        look = self._with_desired(resource, look, record)
        owners = await self._act(resource, lambda: plan_owners(resource, look.observed))
        grown, refusals = await self._grow(resource, look.observed)
        halt = await self._act(resource, lambda: plan(resource, look.desired, look.observed, seen))
        if owners.done or grown or halt.done:
            look = self._with_desired(resource, await self._look(resource, old), record)
        there = (one for one, child in look.observed.children.items() if child is not None)
        self._memory.children[key] = frozenset(there)
        default = self._settings.serving_image
        other = look.images.serving != default and resource.spec.serving.image is None
        workload, wanted = look.observed.child("StatefulSet", resource.metadata.name), look.desired[-1]
        return Facts(
            resource,
            look.observed,
            available_image=default if other else "",
            config_revision=config_revision(next(child for child in look.desired if child["kind"] == "ConfigMap")),
            halt=halt.halt or owners.halt,
            growth=growth(resource, look.observed, refusals),
            applied=includes(workload, with_digest(wanted)),
            correction="; ".join(halt.corrections),
            template_generation=self._template_generation(resource, wanted, workload),
        )

    async def _act(self, resource: DiffusionCache, decide: Callable[[], list[Action]]) -> _Acted:
        """Carries out what is decided. Raises ApiError for what may pass by itself; what forbids it is returned."""
        done, halt = 0, None
        corrections: list[str] = []
        try:
            for action in decide():
                await self._carry_out(resource, action)
                done += 1
                if isinstance(action, Apply) and action.correction:
                    corrections.append(action.correction)
        except Obstacle as error:
            halt = Halt(Problem(error.reason, str(error)), stalled=not error.passing)
        except ApiError as error:
            halt = _halt(error)
            if halt is None:
                raise
        return _Acted(done, halt, tuple(corrections))

    async def _carry_out(self, resource: DiffusionCache, action: Action) -> None:
        await carry_out(self._api, action)
        namespace, name = resource.metadata.namespace, resource.metadata.name
        self._on_progress(Key(namespace, name))
        log.info("%s/%s: applied %s", namespace, name, action)
        self._metrics.writes.labels(action.kind).inc()

    async def _grow(self, resource: DiffusionCache, observed: Observed) -> tuple[int, dict[str, str]]:
        """How many volumes were asked to grow; and by claim, why the server refuses. Nothing else waits for those."""
        done, refusals = 0, dict[str, str]()
        for action in plan_volumes(resource, observed):
            try:
                await self._carry_out(resource, action)
                done += 1
            except ApiError as error:
                if error.status not in (403, 422):
                    raise
                refusals[action.claim.name] = quoted(str(error))
        return done, refusals

    async def _look(self, resource: DiffusionCache, old: DiffusionCacheStatus) -> _Look:
        """The images depend on what runs, and what should be depends on the images."""
        namespace, name = resource.metadata.namespace, resource.metadata.name
        defaults = self._settings.images
        observed = await observe(self._api, namespace, name, desired_children(resource, defaults, self._settings.pods))
        self._pod_figures.watch(Key(namespace, name), (pod for pod in observed.pods if pod.is_ready))
        observed = replace(observed, figures=self._pod_figures.of(Key(namespace, name)))
        return _Look([], observed, images_in_use(resource, old, observed, defaults))

    def _with_desired(self, resource: DiffusionCache, look: _Look, record: TuningStatus | None) -> _Look:
        desired = desired_children(
            resource,
            look.images,
            self._settings.pods,
            pods_left=bool(look.observed.pods),
            tuning=followed(resource.spec, record),
        )
        return replace(look, desired=keep_claim_templates(desired, look.observed))

    def _template_generation(self, resource: DiffusionCache, wanted: JSON, workload: JSON | None) -> int | None:
        """Of the StatefulSet when its pod template changed last, as far as this operator has seen."""
        if workload is None:
            return None
        key = Key(resource.metadata.namespace, resource.metadata.name)
        digest = hashlib.sha256(json.dumps(wanted["spec"]["template"], sort_keys=True).encode()).hexdigest()
        known = self._memory.templates.get(key)
        if known is None or known[0] != digest:
            known = self._memory.templates[key] = (digest, workload["metadata"]["generation"])
        return known[1]

    async def _write_status(self, key: Key, raw: JSON, old: DiffusionCacheStatus, new: DiffusionCacheStatus) -> bool:
        """Whether it was written: not if nothing moved, nor too often if only figures did."""
        if _body(new) == raw.get("status"):
            return False
        now = time.monotonic()
        moved = new.model_copy(update={"cache": old.cache}) != old or (_is_empty(old) and not _is_empty(new))
        if not moved and now - self._memory.figures_written.get(key, float("-inf")) < FIGURES_SECONDS:
            return False
        await self._replace_status(raw, new)
        self._memory.figures_written[key] = now
        return True

    async def _replace_status(self, raw: JSON, status: DiffusionCacheStatus) -> JSON:
        """The resource as it is then."""
        written = await self._api.replace_status(raw | {"status": _body(status)})
        self._metrics.writes.labels("DiffusionCacheStatus").inc()
        return written

    async def _missing_fields(self) -> list[str]:
        read, missing = self._memory.schema
        if time.monotonic() - read > SCHEMA_SECONDS:
            served = await self._api.served_schema()
            missing = missing_fields(served) if served is not None else []
            self._memory.schema = (time.monotonic(), missing)
        return missing


def _body(status: DiffusionCacheStatus) -> JSON:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def _next_look(facts: Facts, status: DiffusionCacheStatus, resync_seconds: float) -> float:
    """In seconds. Changes of children come by watches; figures, events, and what others own do not."""
    conditions = {condition.type: condition.status for condition in status.conditions}
    down = "False" in [conditions.get(kind) for kind in ("Ready", "IndexReady", "LedgerReady", "StoreReady")]
    at_rest = facts.resource.spec.serving.replicas == 0 and not facts.observed.pods
    if down or "Reconciling" in conditions or (_is_empty(status) and not at_rest):
        return URGENT_SECONDS
    return resync_seconds if at_rest else LOOK_SECONDS


def _is_empty(status: DiffusionCacheStatus) -> bool:
    """Whoever has just drawn the first pictures looks for them in the status."""
    return status.cache is None or status.cache.entries == 0


def _halt(error: ApiError) -> Halt | None:
    """What a condition has to say; None for what is simply tried again: a conflict, a busy server, no network."""
    if error.status in (0, 409, 429):
        return None
    if error.status == 403:
        remedy = "mend the operator's Role (`helm upgrade` renders it), the quota or the admission policy"
        return Halt(Problem(FORBIDDEN, f"{error.what}: {error}: {remedy}"), stalled=False)
    if error.status in (400, 422):
        return Halt(Problem("Rejected", f"the API server refuses it ({error.what}): {error}"), stalled=True)
    return Halt(Problem("ApplyFailed", f"{error.what}: {error}"), stalled=False)
