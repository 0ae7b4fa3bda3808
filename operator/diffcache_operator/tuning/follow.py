"""Whether the pods follow the tuning in force, so that what they count is about it. Pure."""

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
"""In which pods take a decision over: the kubelet passes a ConfigMap on within about a minute."""
CLOCK_SECONDS = 60.0
"""By which clocks may differ."""


class Undecided(Exception):
    """Nothing is decided this time. `record`: as it is from now on. `condition`: why."""

    def __init__(self, record: TuningStatus, condition: ConditionState) -> None:
        super().__init__(condition.message)
        self.record, self.condition = record, condition


def with_pods(record: TuningStatus, cache: str, seen: Observed) -> TuningStatus:
    """Counts the pods that there have been: series of any other do not count, whatever its name is."""
    ordinals = [re.fullmatch(rf"{re.escape(cache)}-(\d{{1,3}})", pod.name) for pod in seen.pods]
    most = max((int(match[1]) + 1 for match in ordinals if match), default=0)
    pods = min(MAX_REPLICAS, max(record.pods, most))
    return record if pods == record.pods else record.model_copy(update={"pods": pods})


def with_window(
    spec: DiffusionCacheSpec, record: TuningStatus, seen: Observed, before: ConditionState | None, now: float
) -> TuningStatus:
    """The record with its window begun, because the pods follow it. Raises Undecided.

    `before`: the condition until now. It stands while the pods take a decision over.
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
        record = acknowledged(spec, record, figures.tuning_revisions, now)
    if not record.window_start:
        return record, waiting(record)
    if len(figures.levels) != 1:
        text = "the pods do not report one table of levels: those of an old image do not"
        return record, frozen("LevelsUnknown", text)
    return record, None
