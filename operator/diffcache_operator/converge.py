"""Brings the children of a resource to their desired state, as far as the API server allows it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from diffcache_core.foreign import quoted
from diffcache_core.kubernetes.diagnosis import Problem
from diffcache_core.resource.spec import DiffusionCache
from diffcache_operator.apply import carry_out
from diffcache_operator.clients.api import Api, ApiError
from diffcache_operator.metadata import JSON
from diffcache_operator.metrics import Metrics
from diffcache_operator.observed import Id, Observed
from diffcache_operator.plan import Action, Apply, Obstacle, plan, plan_owners
from diffcache_operator.queue import Key
from diffcache_operator.status import Halt
from diffcache_operator.volumes import plan_volumes

log = logging.getLogger("diffcache.reconcile")

FORBIDDEN = "Forbidden"


@dataclass(frozen=True)
class Converged:
    """What one attempt has done.

    `halt`: what stopped it. `refusals`: for each claim, why the server refuses to expand its volume. `correction`: the
    change by hand that was undone.
    """

    wrote: bool
    halt: Halt | None
    refusals: Mapping[str, str]
    correction: str


@dataclass(frozen=True)
class _Acted:
    done: int
    halt: Halt | None
    corrections: tuple[str, ...]


class Converger:
    """Calls `on_progress(key)` after each action that was carried out."""

    def __init__(self, api: Api, metrics: Metrics, on_progress: Callable[[Key], None]) -> None:
        self._api, self._metrics, self._on_progress = api, metrics, on_progress

    async def converge(
        self, key: Key, resource: DiffusionCache, desired: list[JSON], observed: Observed, seen: Collection[Id]
    ) -> Converged:
        """`seen`: the children that existed at the last look. Raises ApiError for errors that may pass by
        themselves."""
        owners = await self._act(key, lambda: plan_owners(resource, observed))
        grown, refusals = await self._grow(key, resource, observed)
        children = await self._act(key, lambda: plan(resource, desired, observed, seen))
        return Converged(
            wrote=bool(owners.done or grown or children.done),
            halt=children.halt or owners.halt,
            refusals=refusals,
            correction="; ".join(children.corrections),
        )

    async def _act(self, key: Key, decide: Callable[[], list[Action]]) -> _Acted:
        """Carries out the actions until one is forbidden or rejected. Raises ApiError if a retry may help."""
        done, halt = 0, None
        corrections: list[str] = []
        try:
            for action in decide():
                await self._carry_out(key, action)
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

    async def _grow(self, key: Key, resource: DiffusionCache, observed: Observed) -> tuple[int, dict[str, str]]:
        """Returns how many volumes were asked to grow, and for each refused claim the reason. A refusal stops nothing
        else."""
        done, refusals = 0, dict[str, str]()
        for action in plan_volumes(resource, observed):
            try:
                await self._carry_out(key, action)
                done += 1
            except ApiError as error:
                if error.status not in (403, 422):
                    raise
                refusals[action.claim.name] = quoted(str(error))
        return done, refusals

    async def _carry_out(self, key: Key, action: Action) -> None:
        await carry_out(self._api, action)
        self._on_progress(key)
        log.info("%s/%s: applied %s", *key, action)
        self._metrics.writes.labels(action.kind).inc()


def _halt(error: ApiError) -> Halt | None:
    """Returns what the condition must report; None for errors that are just retried: a conflict, a busy server, no
    network."""
    if error.status in (0, 409, 429):
        return None
    if error.status == 403:
        remedy = "mend the operator's Role (`helm upgrade` renders it), the quota or the admission policy"
        return Halt(Problem(FORBIDDEN, f"{error.what}: {error}: {remedy}"), stalled=False)
    if error.status in (400, 422):
        return Halt(Problem("Rejected", f"the API server refuses it ({error.what}): {error}"), stalled=True)
    return Halt(Problem("ApplyFailed", f"{error.what}: {error}"), stalled=False)
