"""One resource becomes what it should be: observe, desired, plan, apply, status."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pydantic import ValidationError

from diffcache_core.manifest import explain_validation
from diffcache_core.spec import DiffusionCache
from diffcache_core.status import DiffusionCacheStatus
from diffcache_operator.apply import carry_out
from diffcache_operator.clients.api import Api, ApiError
from diffcache_operator.desired.children import desired_children
from diffcache_operator.desired.config import config_revision
from diffcache_operator.desired.metadata import JSON, milvus_name
from diffcache_operator.diagnosis import Problem
from diffcache_operator.events import transition_event
from diffcache_operator.images import milvus_image, serving_image
from diffcache_operator.metrics import Metrics
from diffcache_operator.observe import observe, read_resource
from diffcache_operator.observed import Observed
from diffcache_operator.plan import Action, NameTaken, includes, plan, plan_owners, with_digest
from diffcache_operator.queue import GONE, Key
from diffcache_operator.schema import missing_fields
from diffcache_operator.settings import Settings
from diffcache_operator.status import Facts, Halt, invalid_status, make_status

log = logging.getLogger("diffcache.reconcile")

FORBIDDEN = "Forbidden"

FIGURES_SECONDS = 60.0  # between two writes of a status in which only figures have moved
LOOK_SECONDS = 30.0  # between two looks at serving pods' figures
URGENT_SECONDS = 10.0  # the same while something is the matter that no watch tells of: an event, an index that is down
SCHEMA_SECONDS = 60.0  # for which an answer about the CRD holds


@dataclass
class _Memory:
    """What is only worth something while the operator runs; losing it costs a write or a read."""

    figures_written: dict[Key, float]
    schema: tuple[float, list[str]] = (float("-inf"), [])


@dataclass(frozen=True)
class _Look:
    """What should be, and what is."""

    desired: list[JSON]  # the StatefulSet of serving pods is the last
    observed: Observed
    serving_image: str
    milvus_image: str


@dataclass(frozen=True)
class _Acted:
    """How many actions were carried out, and what stopped the others."""

    done: int
    halt: Halt | None = None


class StillHalted(Exception):
    """The status says why; a repetition may help. `forbidden`: a right is missing, or a quota or a policy says no."""

    def __init__(self, halt: Halt) -> None:
        super().__init__(halt.problem.message)
        self.forbidden = halt.problem.reason == FORBIDDEN


class Reconciler:
    def __init__(self, api: Api, settings: Settings, metrics: Metrics, on_progress: Callable[[Key], None]) -> None:
        """`on_progress` is told of every action carried out."""
        self._api, self._settings, self._metrics, self._on_progress = api, settings, metrics, on_progress
        self._memory = _Memory({})

    async def reconcile(self, key: Key) -> object:
        """Seconds until the next look, or GONE. Raises ApiError or StillHalted for what a repetition may cure."""
        raw = await read_resource(self._api, *key)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            self._memory.figures_written.pop(key, None)
            return GONE  # children go by ownership, whether we run or not
        old = DiffusionCacheStatus.model_validate(raw.get("status", {}))
        try:
            resource = DiffusionCache.model_validate({name: value for name, value in raw.items() if name != "status"})
        except ValidationError as error:
            message = f"this operator cannot read the resource: {explain_validation(error).strip()}"
            generation = raw["metadata"]["generation"]
            await self._write_status(key, raw, old, invalid_status(generation, message, old, _now()))
            return self._settings.resync_seconds
        facts = await self._converge(resource, old)
        new = make_status(replace(facts, missing_fields=await self._missing_fields()), old, _now())
        if await self._write_status(key, raw, old, new):
            event = transition_event(resource, old, new, _now())
            if event is not None:
                log.info("%s/%s: %s: %s", *key, event["reason"], event["message"])
                await self._api.create(event)
        if facts.halt is not None and not facts.halt.stalled:
            raise StillHalted(facts.halt)  # again, with growing waits
        return _next_look(facts, new, self._settings.resync_seconds)

    async def _converge(self, resource: DiffusionCache, old: DiffusionCacheStatus) -> Facts:
        """Makes the children what they should be, and tells what is there afterwards."""
        look = await self._look(resource, old)
        owners = await self._act(resource, lambda: plan_owners(resource, look.observed))
        halt = await self._act(resource, lambda: plan(resource, look.desired, look.observed))
        if owners.done or halt.done:
            look = await self._look(resource, old)
        default = self._settings.serving_image
        other = look.serving_image != default and resource.spec.serving.image is None
        workload, wanted = look.observed.child("StatefulSet", resource.metadata.name), look.desired[-1]
        return Facts(
            resource,
            look.observed,
            image=look.serving_image,
            milvus_image=look.milvus_image,
            available_image=default if other else "",
            config_revision=config_revision(next(child for child in look.desired if child["kind"] == "ConfigMap")),
            halt=halt.halt or owners.halt,
            applied=includes(workload, with_digest(wanted)),
        )

    async def _act(self, resource: DiffusionCache, decide: Callable[[], list[Action]]) -> _Acted:
        """Carries out what is decided. Raises ApiError for what may pass by itself; what forbids it is returned."""
        done = 0
        try:
            for action in decide():
                await carry_out(self._api, action)
                done += 1
                self._on_progress(Key(resource.metadata.namespace, resource.metadata.name))
                log.info("%s/%s: applied %s", resource.metadata.namespace, resource.metadata.name, action)
                self._metrics.writes.labels(action.kind).inc()
        except NameTaken as error:
            return _Acted(done, Halt(Problem("NameTaken", str(error)), stalled=not error.passing))
        except ApiError as error:
            halt = _halt(error)
            if halt is None:
                raise
            return _Acted(done, halt)
        return _Acted(done)

    async def _look(self, resource: DiffusionCache, old: DiffusionCacheStatus) -> _Look:
        """The images depend on what runs, and what should be depends on the images."""
        namespace, name = resource.metadata.namespace, resource.metadata.name
        settings = self._settings
        draft = desired_children(resource, settings.serving_image, settings.milvus_image, settings.pull_secrets)
        observed = await observe(self._api, namespace, name, draft)
        serving = serving_image(resource, old, observed.child("StatefulSet", name), settings.serving_image)
        index = milvus_image(resource, old, observed.child("StatefulSet", milvus_name(name)), settings.milvus_image)
        return _Look(desired_children(resource, serving, index, settings.pull_secrets), observed, serving, index)

    async def _write_status(self, key: Key, raw: JSON, old: DiffusionCacheStatus, new: DiffusionCacheStatus) -> bool:
        """Whether it was written: not if nothing moved, nor too often if only figures did."""
        body = new.model_dump(mode="json", by_alias=True, exclude_none=True)
        if body == raw.get("status"):
            return False
        now = time.monotonic()
        moved = new.model_copy(update={"cache": old.cache}) != old
        if not moved and now - self._memory.figures_written.get(key, float("-inf")) < FIGURES_SECONDS:
            return False
        await self._api.replace_status(raw | {"status": body})
        self._metrics.writes.labels("DiffusionCacheStatus").inc()
        self._memory.figures_written[key] = now
        return True

    async def _missing_fields(self) -> list[str]:
        read, missing = self._memory.schema
        if time.monotonic() - read > SCHEMA_SECONDS:
            served = await self._api.served_schema()
            missing = missing_fields(served) if served is not None else []
            self._memory.schema = (time.monotonic(), missing)
        return missing


def _next_look(facts: Facts, status: DiffusionCacheStatus, resync_seconds: float) -> float:
    """In seconds. Changes of children come by watches; figures, events, and what others own do not."""
    conditions = {condition.type: condition.status for condition in status.conditions}
    if conditions["Ready"] != "True" or conditions["IndexReady"] == "False" or "Reconciling" in conditions:
        return URGENT_SECONDS
    at_rest = facts.resource.spec.serving.replicas == 0 and not facts.observed.pods
    return resync_seconds if at_rest else LOOK_SECONDS


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


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
