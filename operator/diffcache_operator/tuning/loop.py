"""One look of the tuner at a resource: what its pods follow, what they have counted, and what is decided from it.

It writes nothing. What it decides goes into `status.tuning` first and then into the ConfigMap: a crash between the two
ends the same, for the next look renders what the status says.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from diffcache_core.resource.spec import MAX_REPLICAS, DiffusionCache, TuningMode
from diffcache_core.resource.status import DiffusionCacheStatus, TuningStatus
from diffcache_core.tuning.record import (
    acknowledged,
    changed_at,
    goals_of,
    in_force,
    record_decision,
    record_for,
    seconds_of,
)
from diffcache_core.tuning.tuner import Decision, Tuning, tune
from diffcache_operator.claims import Claim, as_before
from diffcache_operator.clients.prometheus import Access, PrometheusError
from diffcache_operator.figures import Figures
from diffcache_operator.observed import Observed
from diffcache_operator.queue import Key
from diffcache_operator.tuning.inquiries import Answer, Inquiries, Question
from diffcache_operator.tuning.source import NoSource, source_of
from diffcache_operator.tuning.tell import TUNING_ACTIVE, claim_of, frozen, steady, waiting

LOOK_SECONDS = 60.0
"""Between two questions to Prometheus about one cache."""
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
        access: Access,
        inquiries: Inquiries,
        clock: Callable[[], float] = time.time,
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        self._access, self._inquiries, self._clock, self._stopwatch = access, inquiries, clock, stopwatch
        self._looked: dict[Key, float] = {}

    def forget(self, key: Key) -> None:
        self._looked.pop(key, None)
        self._inquiries.forget(key)

    def look(self, resource: DiffusionCache, old: DiffusionCacheStatus, seen: Observed) -> Tuned | None:
        """None: tuning is off. Waits for nothing: what Prometheus has said in the meantime is decided upon."""
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
        record = _with_pods(record, key.name, seen)
        record, trouble = self._follow(resource, record, seen, now)
        if trouble is not None:
            changed = changed_at(spec, record)
            fresh = changed is not None and 0 <= now - changed < TAKE_OVER_SECONDS
            return Tuned(record, before if before is not None and fresh else trouble)
        try:
            question = _question(resource, record, self._access)
        except NoSource as error:
            return Tuned(record, frozen(error.reason, str(error)))
        answer = self._inquiries.take(key, question)
        if answer is None:
            if question.span(now).grids(now) is not None and (before is None or self._is_due(key)):
                self._looked[key] = self._stopwatch()
                self._inquiries.ask(key, question)
            return Tuned(record, before or waiting(record))
        assert seen.figures is not None
        own_levels = next(iter(seen.figures.levels), ())
        current = in_force(spec, record, own_levels)
        decision = self._decide(resource, record, current, answer)
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
        ready = sum(pod.is_ready for pod in seen.pods)
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

    def _decide(self, resource: DiffusionCache, record: TuningStatus, current: Tuning, answer: Answer) -> Decision:
        def stay(reason: str, message: str) -> Decision:
            return Decision(tuning=current, reason=reason, message=message, frozen=True, inputs={})

        spec, reading = resource.spec, answer.reading
        if isinstance(reading, PrometheusError):
            return stay(reading.reason, str(reading))
        if reading.bad:
            return stay("BadData", reading.bad[0])
        return tune(current, reading.window, goals_of(spec), now=answer.at, changed_at=changed_at(spec, record))


def _with_pods(record: TuningStatus, cache: str, seen: Observed) -> TuningStatus:
    """Counts the pods that there have been: series of any other do not count, whatever its name is."""
    ordinals = [re.fullmatch(rf"{re.escape(cache)}-(\d{{1,3}})", pod.name) for pod in seen.pods]
    most = max((int(match[1]) + 1 for match in ordinals if match), default=0)
    pods = min(MAX_REPLICAS, max(record.pods, most))
    return record if pods == record.pods else record.model_copy(update={"pods": pods})


def _question(resource: DiffusionCache, record: TuningStatus, access: Access) -> Question:
    """Raises NoSource."""
    pods = tuple(f"{resource.metadata.name}-{number}" for number in range(record.pods))
    return Question(source_of(resource, access), pods, record.revision, record.window_start, record.measured_since)
