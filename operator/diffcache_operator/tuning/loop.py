"""One look of the tuner at a resource: what its pods follow, what they have counted, and what the tuner decides.

This code writes nothing. The reconcile writes a decision into `status.tuning` first and then into the ConfigMap. A
crash between the two does no harm: the next reconcile renders what the status says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from diffcache_core.resource.spec import DiffusionCache, DiffusionCacheSpec, TuningMode
from diffcache_core.resource.status import DiffusionCacheStatus, TuningStatus
from diffcache_core.tuning.record import changed_at, goals_of, in_force, record_decision, record_for
from diffcache_core.tuning.tuner import Decision, Tuning, tune
from diffcache_operator.clients.prometheus import Access, PrometheusError
from diffcache_operator.conditions import ConditionState, as_before
from diffcache_operator.observed import Observed
from diffcache_operator.queue import Key
from diffcache_operator.tuning.conditions import TUNING_ACTIVE, condition_of, frozen, steady, waiting
from diffcache_operator.tuning.follow import Undecided, with_pods, with_window
from diffcache_operator.tuning.inquiries import Answer, Inquiries, Question
from diffcache_operator.tuning.source import NoSource, source_of

LOOK_SECONDS = 60.0
"""Seconds between two questions to Prometheus about one cache."""


@dataclass(frozen=True)
class Tuned:
    """The result of a look. `moved`: the record has a new revision, and the status must have it before pods follow
    it."""

    record: TuningStatus
    condition: ConditionState
    moved: bool


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
        """Returns None if tuning is off. It waits for nothing and decides on the answer that Prometheus gave in the
        meantime."""
        key = Key(resource.metadata.namespace, resource.metadata.name)
        if resource.spec.tuning.mode is TuningMode.DISABLED:
            self.forget(key)
            return None
        try:
            record, condition = self._consider(key, resource, old, seen, self._clock())
        except Undecided as undecided:
            record, condition = undecided.record, undecided.condition
        revision = 0 if old.tuning is None else old.tuning.revision
        return Tuned(record, condition, moved=record.revision != revision)

    def _consider(
        self, key: Key, resource: DiffusionCache, old: DiffusionCacheStatus, seen: Observed, now: float
    ) -> tuple[TuningStatus, ConditionState]:
        """Returns the record after a decision, and the condition. Raises Undecided."""
        spec, before = resource.spec, as_before(old, TUNING_ACTIVE)
        record = self._own_record(key, spec, old.tuning, now)
        record = with_window(spec, with_pods(record, key.name, seen), seen, before, now)
        question = _question(resource, record, self._access)
        answer = self._inquiries.take(key, question)
        if answer is None:
            self._ask(key, question, before, now)
            raise Undecided(record, before or waiting(record))
        assert seen.figures is not None  # with_window saw the pods' levels in them
        current = in_force(spec, record, next(iter(seen.figures.levels), ()))
        decision = _decide(spec, record, current, answer)
        return _conclude(spec, record, current, decision, before, now)

    def _own_record(self, key: Key, spec: DiffusionCacheSpec, found: TuningStatus | None, now: float) -> TuningStatus:
        """Returns the record for this spec. Raises Undecided if it is a new one: the pods must follow it first."""
        record = record_for(spec, found, now)
        if found is not None and record.revision != found.revision:
            self.forget(key)
            raise Undecided(record, waiting(record))
        return record

    def _ask(self, key: Key, question: Question, before: ConditionState | None, now: float) -> None:
        """Asks at once if there is no condition yet, else every LOOK_SECONDS."""
        has_begun = question.span(now).grids(now) is not None
        is_due = self._stopwatch() - self._looked.get(key, float("-inf")) >= LOOK_SECONDS
        if has_begun and (before is None or is_due):
            self._looked[key] = self._stopwatch()
            self._inquiries.ask(key, question)


def _question(resource: DiffusionCache, record: TuningStatus, access: Access) -> Question:
    """Makes the question about this cache. Raises Undecided if there is no Prometheus to ask."""
    try:
        source = source_of(resource, access)
    except NoSource as error:
        raise Undecided(record, frozen(error.reason, str(error))) from None
    pods = tuple(f"{resource.metadata.name}-{number}" for number in range(record.pods))
    return Question(source, pods, record.revision, record.window_start, record.measured_since)


def _decide(spec: DiffusionCacheSpec, record: TuningStatus, current: Tuning, answer: Answer) -> Decision:
    def stay(reason: str, message: str) -> Decision:
        return Decision(tuning=current, reason=reason, message=message, frozen=True, inputs={})

    reading = answer.reading
    if isinstance(reading, PrometheusError):
        return stay(reading.reason, str(reading))
    if reading.bad:
        return stay("BadData", reading.bad[0])
    return tune(current, reading.window, goals_of(spec), now=answer.at, changed_at=changed_at(spec, record))


def _conclude(
    spec: DiffusionCacheSpec,
    record: TuningStatus,
    current: Tuning,
    decision: Decision,
    before: ConditionState | None,
    now: float,
) -> tuple[TuningStatus, ConditionState]:
    """Returns the record after the decision, and the condition; both keep their old text while only numbers change."""
    decided = record_decision(spec, record, current, decision, now)
    text, condition = decided.decision, condition_of(spec.tuning.mode, current, decision)
    if spec.tuning.mode is TuningMode.RECOMMEND and condition.status == "True":
        text = f"would be {text}"
    if decided.revision == record.revision:
        text, condition = steady(text, record.decision), condition.steady(before)
    return decided.model_copy(update={"decision": text}), condition
