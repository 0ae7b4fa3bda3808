"""The events that the cache reports, for example to the metrics. Every method returns at once and never raises."""

from __future__ import annotations

from typing import Literal, Protocol

Operation = Literal["look_up", "hit", "insert", "delete", "repair"]
"""The operation that failed on index, ledger or store."""

Eviction = Literal["capacity", "replaced", "purge", "space"]
"""Why a state left the cache."""

Drop = Literal[
    "admission", "damaged", "disk", "error", "ledger", "missing", "not_finite", "purged", "queue", "size"
]  # fmt: skip
"""Why a state was not kept, or was lost."""

Part = Literal["index", "ledger", "store"]


class CacheEvents(Protocol):
    def part_answers(self, part: Part, answers: bool) -> None:
        """Reports whether the last operation on this part succeeded."""

    def operation_failed(self, operation: Operation) -> None: ...

    def look_up_skipped(self) -> None:
        """Reports that a look-up was skipped because the last look-ups failed."""

    def search_inconclusive(self) -> None:
        """Reports that an entry which the search did not return could have saved more steps."""

    def resumed(self, similarity: float) -> None: ...

    def dropped(self, reason: Drop, states: int) -> None: ...

    def evicted(self, reason: Eviction, states: int) -> None: ...

    def holds(self, entries: int, state_bytes: int) -> None:
        """Reports how much the cache holds now. `state_bytes` is in bytes."""

    def may_hold(self, state_bytes: float) -> None: ...

    def undeleted(self, states: int) -> None:
        """Reports how many states have left the cache while the store still holds their bytes."""
