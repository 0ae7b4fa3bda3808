"""What the cache tells whoever counts it. Every method returns at once and never raises."""

from __future__ import annotations

from typing import Literal, Protocol

Operation = Literal["look_up", "hit", "insert", "delete", "repair"]
"""What failed on index, ledger or store."""

Eviction = Literal["capacity", "replaced", "purge", "space"]
"""Why a state left the cache."""

Drop = Literal[
    "admission", "damaged", "disk", "error", "ledger", "missing", "not_finite", "purged", "queue", "size"
]  # fmt: skip
"""Why a state was not kept, or was lost."""

Part = Literal["index", "ledger", "store"]


class CacheEvents(Protocol):
    def part_answers(self, part: Part, answers: bool) -> None:
        """Whether the last operation on that part succeeded."""

    def operation_failed(self, operation: Operation) -> None: ...

    def look_up_skipped(self) -> None:
        """Because the last ones failed."""

    def search_inconclusive(self) -> None:
        """An entry that the search did not return could have saved more."""

    def resumed(self, similarity: float) -> None: ...

    def dropped(self, reason: Drop, states: int) -> None: ...

    def evicted(self, reason: Eviction, states: int) -> None: ...

    def holds(self, entries: int, state_bytes: int) -> None:
        """All that the cache holds now."""

    def may_hold(self, state_bytes: float) -> None: ...

    def undeleted(self, states: int) -> None:
        """They left the cache, and the store still has their bytes."""
