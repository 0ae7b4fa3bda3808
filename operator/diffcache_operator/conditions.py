"""What a condition says, without its times. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from diffcache_core.resource.status import DiffusionCacheStatus

Truth = Literal["True", "False", "Unknown"]

_NUMBER = re.compile(r"[-+]?\d[\d.,e+-]*")


@dataclass(frozen=True)
class ConditionState:
    type: str
    status: Truth
    reason: str
    message: str

    def steady(self, before: ConditionState | None) -> ConditionState:
        """With the message from before while it is the same turn and only numbers have moved."""
        if before is None or (before.status, before.reason) != (self.status, self.reason):
            return self
        return replace(self, message=steady(self.message, before.message))


def as_before(status: DiffusionCacheStatus, kind: str) -> ConditionState | None:
    """What a condition says at present."""
    found = status.condition(kind)
    return None if found is None else ConditionState(found.type, found.status, found.reason, found.message)


def steady(new: str, old: str) -> str:
    """The old text as long as the new one differs in nothing but numbers."""
    return old if _NUMBER.sub("#", new) == _NUMBER.sub("#", old) else new
