"""What the status says about the tuner. Pure.

A text stays the same while only its numbers change; otherwise each look would change and write the status.
"""

from __future__ import annotations

from diffcache_core.resource.spec import TuningMode
from diffcache_core.resource.status import TuningStatus
from diffcache_core.tuning.tuner import Decision, Tuning
from diffcache_operator.conditions import ConditionState, steady

__all__ = ["TUNING_ACTIVE", "condition_of", "frozen", "steady", "switched_off", "waiting"]

TUNING_ACTIVE = "TuningActive"


def condition_of(mode: TuningMode, current: Tuning, decision: Decision) -> ConditionState:
    if decision.frozen:
        return frozen(decision.reason, decision.message)
    if decision.tuning == current:
        return ConditionState(TUNING_ACTIVE, "True", decision.reason, decision.message)
    if mode is TuningMode.RECOMMEND:
        text = f"mode Auto would do this ({decision.reason}): {decision.message}"
        return ConditionState(TUNING_ACTIVE, "True", "Recommended", text)
    return ConditionState(TUNING_ACTIVE, "True", "Tuned", f"{decision.reason}: {decision.message}")


def frozen(reason: str, message: str) -> ConditionState:
    return ConditionState(TUNING_ACTIVE, "False", reason, message)


def waiting(record: TuningStatus) -> ConditionState:
    """Returns the condition until figures count: they do once all ready pods follow the tuning in force."""
    if record.window_start:
        return frozen("WindowBegins", "all ready pods follow the tuning in force; figures count from now on")
    return frozen(
        "WaitingForPods",
        f"figures count as soon as all ready pods follow the tuning in force (revision {record.revision}); pods of an "
        "old image never report: `kubectl diffcache upgrade` replaces them",
    )


def switched_off(record: TuningStatus | None) -> TuningStatus | None:
    """Returns the record of a cache whose tuning is off: it keeps the revision count and, for readers, the past
    decisions."""
    if record is None:
        return None
    return TuningStatus(revision=record.revision, history=record.history)
