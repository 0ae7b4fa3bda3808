"""Checks whether the pods follow the tuning in force: only then their counts are about it. Pure."""

from __future__ import annotations

import re

from diffcache_core.resource.spec import MAX_REPLICAS, DiffusionCacheSpec
from diffcache_core.resource.status import TuningStatus
from diffcache_core.tuning.record import acknowledged, changed_at, seconds_of
from diffcache_operator.conditions import ConditionState
from diffcache_operator.figures import Figures
from diffcache_operator.observed import Observed
from diffcache_operator.tuning.conditions import frozen, waiting

TAKE_OVER_SECONDS = 180.0
"""Seconds that pods may take to follow a decision: the kubelet passes a ConfigMap on within about a minute."""
CLOCK_SECONDS = 60.0
"""Seconds by which clocks may differ."""


class Undecided(Exception):
    """Nothing is decided this time. `record`: the record from now on. `condition`: says why."""

    def __init__(self, record: TuningStatus, condition: ConditionState) -> None:
        super().__init__(condition.message)
        self.record, self.condition = record, condition


def with_pods(record: TuningStatus, cache: str, seen: Observed) -> TuningStatus:
    """Returns the record with the number of pods that have existed. Series of other pods never count, whatever their
    names."""
    ordinals = [re.fullmatch(rf"{re.escape(cache)}-(\d{{1,3}})", pod.name) for pod in seen.pods]
    most = max((int(match[1]) + 1 for match in ordinals if match), default=0)
    pods = min(MAX_REPLICAS, max(record.pods, most))
    return record if pods == record.pods else record.model_copy(update={"pods": pods})


def with_window(
    spec: DiffusionCacheSpec, record: TuningStatus, seen: Observed, before: ConditionState | None, now: float
) -> TuningStatus:
    """Returns the record with its window begun. Raises Undecided if not all ready pods follow it yet.

    `before`: the condition until now. It stays while the pods start to follow a decision.
    """
    record, trouble = _follow(spec, record, seen, now)
    if trouble is None:
        return record
    changed = changed_at(spec, record)
    is_fresh = changed is not None and 0 <= now - changed < TAKE_OVER_SECONDS
    raise Undecided(record, before if before is not None and is_fresh else trouble)


def _follow(
    spec: DiffusionCacheSpec, record: TuningStatus, seen: Observed, now: float
) -> tuple[TuningStatus, ConditionState | None]:
    """Returns the record, with its window begun if the pods follow it, and else a condition that says why not."""
    ready = sum(pod.is_ready for pod in seen.pods)
    if not ready:
        return record, frozen("NoPod", "no pod is ready, so nothing is measured")
    times = (seconds_of(record.window_start), seconds_of(record.measured_since))
    if any(time is not None and time > now + CLOCK_SECONDS for time in times):
        text = "the window began in the future: the clock was set back, and the window begins again"
        return record.model_copy(update={"window_start": "", "measured_since": ""}), frozen("ClockJump", text)
    figures = seen.figures or Figures()
    if len(figures.tuning_revisions) == ready and len(figures.levels) == 1:
        record = acknowledged(spec, record, figures.tuning_revisions, now)
    if not record.window_start:
        return record, waiting(record)
    if len(figures.levels) != 1:
        text = "the pods do not report one table of levels: those of an old image do not"
        return record, frozen("LevelsUnknown", text)
    return record, None
