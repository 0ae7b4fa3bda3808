"""What the status says of the tuner. Pure.

Texts stand still while only their numbers move: a status that changed with every look would be written with every look.
"""

from __future__ import annotations

from diffcache_core.resource.spec import TuningMode
from diffcache_core.resource.status import TuningStatus
from diffcache_core.tuning.tuner import Decision, Tuning
from diffcache_operator.claims import Claim, steady

__all__ = ["TUNING_ACTIVE", "claim_of", "frozen", "steady", "switched_off", "waiting"]

TUNING_ACTIVE = "TuningActive"


def claim_of(mode: TuningMode, current: Tuning, decision: Decision) -> Claim:
    if decision.frozen:
        return frozen(decision.reason, decision.message)
    if decision.tuning == current:
        return Claim(TUNING_ACTIVE, "True", decision.reason, decision.message)
    if mode is TuningMode.RECOMMEND:
        text = f"mode Auto would do this ({decision.reason}): {decision.message}"
        return Claim(TUNING_ACTIVE, "True", "Recommended", text)
    return Claim(TUNING_ACTIVE, "True", "Tuned", f"{decision.reason}: {decision.message}")


def frozen(reason: str, message: str) -> Claim:
    return Claim(TUNING_ACTIVE, "False", reason, message)


def waiting(record: TuningStatus) -> Claim:
    """Figures count from when all ready pods follow the tuning in force."""
    if record.window_start:
        return frozen("WindowBegins", "all ready pods follow the tuning in force; figures count from now on")
    return frozen(
        "WaitingForPods",
        f"figures count as soon as all ready pods follow the tuning in force (revision {record.revision}); pods of an "
        "old image never tell: `kubectl diffcache upgrade` replaces them",
    )


def switched_off(record: TuningStatus | None) -> TuningStatus | None:
    """Of a cache that is not tuned: only the count of revisions goes on, and what was decided stays to be read."""
    if record is None:
        return None
    return TuningStatus(revision=record.revision, history=record.history)
