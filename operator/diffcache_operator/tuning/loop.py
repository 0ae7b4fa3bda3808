"""One look of the tuner at a resource: what its pods follow, what they have counted, and what is decided from it.

It writes nothing. What it decides goes into `status.tuning` first and then into the ConfigMap: a crash between the two
ends the same, for the next look renders what the status says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from diffcache_core.spec import DiffusionCache, TuningMode
from diffcache_core.status import DiffusionCacheStatus, TuningStatus
from diffcache_core.tuning import Decision, Tuning, evidence_start, tune
from diffcache_core.tuning_record import (
    acknowledged,
    changed_at,
    goals_of,
    in_force,
    record_decision,
    record_for,
    seconds_of,
)
from diffcache_operator.claims import Claim, as_before
from diffcache_operator.clients.prometheus import Prometheus, PrometheusError
from diffcache_operator.figures import Figures
from diffcache_operator.observed import Observed, is_ready
from diffcache_operator.queue import Key
from diffcache_operator.tuning.read import read_window
from diffcache_operator.tuning.tell import TUNING_ACTIVE, claim_of, frozen, steady, waiting
from diffcache_operator.tuning.window import Grid, Span

LOOK_SECONDS = 60.0
"""Between two questions to Prometheus about one cache."""
READ_SECONDS = 30.0
"""For all questions of one look: reconciles of other caches wait for the same few workers."""
TAKE_OVER_SECONDS = 180.0
"""In which pods take a decision over: the kubelet passes a ConfigMap on within about a minute."""
CLOCK_SECONDS = 60.0
"""By which clocks may differ."""


@dataclass(frozen=True)
class Tuned:
    """`moved`: from now on something else holds, which the status has to say before anything follows it."""

    record: TuningStatus
    claim: Claim
    moved: bool = False


class Tuner:
    def __init__(
        self,
        prometheus: Prometheus,
        clock: Callable[[], float] = time.time,
        stopwatch: Callable[[], float] = time.monotonic,
        seconds: float = READ_SECONDS,
    ) -> None:
        """`seconds`: for all questions of one look."""
        self._prometheus, self._clock, self._stopwatch, self._seconds = prometheus, clock, stopwatch, seconds
        self._looked: dict[Key, float] = {}

    def forget(self, key: Key) -> None:
        self._looked.pop(key, None)

    async def look(self, resource: DiffusionCache, old: DiffusionCacheStatus, seen: Observed) -> Tuned | None:
        """None: tuning is off. Raises nothing of Prometheus' making."""
        spec, key = resource.spec, Key(resource.metadata.namespace, resource.metadata.name)
        if spec.tuning.mode is TuningMode.DISABLED:
            self.forget(key)
            return None
        now = self._clock()
        record = record_for(spec, old.tuning, now)
        if old.tuning is not None and record.revision != old.tuning.revision:
            self.forget(key)
            return Tuned(record, waiting(record), moved=True)
        before = as_before(old, TUNING_ACTIVE)
        record, trouble = self._follow(resource, record, seen, now)
        if trouble is not None:
            changed = changed_at(spec, record)
            fresh = changed is not None and 0 <= now - changed < TAKE_OVER_SECONDS
            return Tuned(record, before if before is not None and fresh else trouble)
        grids = _span(record, now).grids(now)
        if grids is None or (before is not None and not self._is_due(key)):
            return Tuned(record, before or waiting(record))
        self._looked[key] = self._stopwatch()
        assert seen.figures is not None
        own_levels = next(iter(seen.figures.levels), ())
        current = in_force(spec, record, own_levels)
        decision = await self._decide(resource, record, current, grids, now)
        decided = record_decision(spec, record, current, decision, now)
        moved = decided.revision != record.revision
        claim = claim_of(spec.tuning.mode, current, decision)
        if spec.tuning.mode is TuningMode.RECOMMEND and claim.status == "True":
            decided = decided.model_copy(update={"decision": f"would be {decided.decision}"})
        if not moved:
            decided = decided.model_copy(update={"decision": steady(decided.decision, record.decision)})
            claim = claim.steady(before)
        return Tuned(decided, claim, moved)

    def _is_due(self, key: Key) -> bool:
        return self._stopwatch() - self._looked.get(key, float("-inf")) >= LOOK_SECONDS

    def _follow(
        self, resource: DiffusionCache, record: TuningStatus, seen: Observed, now: float
    ) -> tuple[TuningStatus, Claim | None]:
        """The record with its window begun if the pods follow it; else why there is no window."""
        ready = sum(map(is_ready, seen.pods))
        if not ready:
            return record, frozen("NoPod", "no pod is ready, so nothing is measured")
        times = (seconds_of(record.window_start), seconds_of(record.measured_since))
        if any(time is not None and time > now + CLOCK_SECONDS for time in times):
            text = "the window began in the future: the clock was set back, and the window begins again"
            return record.model_copy(update={"window_start": "", "measured_since": ""}), frozen("ClockJump", text)
        figures = seen.figures or Figures()
        if len(figures.tuning_revisions) == ready and len(figures.levels) == 1:
            record = acknowledged(resource.spec, record, figures.tuning_revisions, now)
        if not record.window_start:
            return record, waiting(record)
        if len(figures.levels) != 1:
            return record, frozen(
                "LevelsUnknown", "the pods do not tell one table of levels: those of an old image do not"
            )
        return record, None

    async def _decide(
        self, resource: DiffusionCache, record: TuningStatus, current: Tuning, grids: tuple[Grid, Grid], now: float
    ) -> Decision:
        def stay(reason: str, message: str) -> Decision:
            return Decision(tuning=current, reason=reason, message=message, frozen=True, inputs={})

        spec, metadata = resource.spec, resource.metadata
        url = spec.prometheus.url or self._prometheus.own_url
        if not url:
            advice = "set spec.prometheus.url, or prometheus.url of the operator's chart"
            return stay("NoPrometheus", f"nobody has said which Prometheus scrapes the pods: {advice}")
        try:
            async with asyncio.timeout(self._seconds):
                reading = await read_window(self._prometheus, url, metadata.namespace, metadata.name, grids, now)
        except PrometheusError as error:
            return stay(error.reason, str(error))
        except TimeoutError:
            trouble = self._prometheus.give_up(url, self._seconds)
            return stay(trouble.reason, str(trouble))
        if reading.bad:
            return stay("BadData", reading.bad[0])
        return tune(current, reading.window, goals_of(spec), now=now, changed_at=changed_at(spec, record))


def _span(record: TuningStatus, now: float) -> Span:
    """A record whose window has not begun has nothing to count."""
    return Span(evidence_start(now, seconds_of(record.measured_since) or now), seconds_of(record.window_start) or now)
