"""How much a cache may hold."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Budget:
    """Limits of a cache; `inf` means no limit."""

    bytes: float = inf  # allocated by states
    entries: float = inf


NO_LIMIT = Budget()
