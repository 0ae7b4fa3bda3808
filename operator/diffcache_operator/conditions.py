"""A condition without its times. Pure."""

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
        """Returns this condition, with the old message if status and reason are the same and only numbers in it
        changed."""
        if before is None or (before.status, before.reason) != (self.status, self.reason):
            return self
        return replace(self, message=steady(self.message, before.message))


def as_before(status: DiffusionCacheStatus, kind: str) -> ConditionState | None:
    """Returns the present condition of this type; None if there is none."""
    found = status.condition(kind)
    return None if found is None else ConditionState(found.type, found.status, found.reason, found.message)


def steady(new: str, old: str) -> str:
    """Returns the old text if the new one differs only in numbers, else the new one."""
    return old if _NUMBER.sub("#", new) == _NUMBER.sub("#", old) else new
