"""The durable record of entries and states. Index and store follow it.

The ledger sorts states by the score of the policy. The state with the lowest score is evicted first, and the age L
rises to that score. There are two implementations of this contract: SQLite for a single process, and Redis for
processes that share a cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import PolicyRecord
from diffcache_core.cache.states import Entry, StateKind, StateRecord

_LOWER = str.maketrans({chr(c): chr(c + 32) for c in range(ord("A"), ord("Z") + 1)})  # ASCII only, as SQLite's lower()


class LedgerUnavailable(Exception):
    """The ledger did not answer. A look-up then returns a Miss, and the keeper drops the entry to be written."""


@dataclass(frozen=True)
class Totals:
    entries: int = 0
    states: int = 0
    bytes: int = 0

    def plus(self, entries: int, states: int, size: int) -> Totals:
        return Totals(self.entries + entries, self.states + states, self.bytes + size)

    def exceeds(self, budget: Budget) -> bool:
        return self.bytes > budget.bytes or self.entries > budget.entries


@dataclass(frozen=True)
class Dropped:
    """The states and entries that were dropped from the ledger. Index and store have to drop them next."""

    states: tuple[StateRecord, ...] = ()
    entries: tuple[str, ...] = ()  # ids of entries that have no state left

    @classmethod
    def all_of(cls, parts: Iterable[Dropped]) -> Dropped:
        parts = list(parts)
        return cls(
            tuple(state for part in parts for state in part.states),
            tuple(entry for part in parts for entry in part.entries),
        )

    def plus(self, other: Dropped) -> Dropped:
        return Dropped.all_of([self, other])


@dataclass(frozen=True)
class Inserted:
    """The result of an insertion."""

    replaced: Dropped = Dropped()  # the older entry of the same request
    evicted: Dropped = Dropped()  # evicted to stay within the budget
    was_purged: bool = False  # nothing was inserted, because a purge matched this entry or its parent


@dataclass(frozen=True)
class IndexedIds:
    """The entries that an index must or may hold."""

    mine: set[str]  # entries of the adopted family with a state of the given kind: the index must hold them
    others: set[str]  # entries of other families: another process may still search for them


@dataclass(frozen=True)
class KeyRow:
    entry_id: str
    space: str
    key: np.ndarray  # (dim,) float32


@dataclass(frozen=True)
class Target:
    """Selects entries for a purge or a listing: those that match every field that is not empty."""

    entry_id: str = ""
    prompt: str = ""
    prompt_contains: str = ""
    tenant: str = ""
    model: str = ""  # name or fingerprint

    def matches(self, entry: Entry) -> bool:
        name, _, fingerprint = entry.model.partition("@")
        return (
            self.entry_id in ("", entry.id)
            and self.prompt in ("", entry.prompt)
            and self.prompt_contains.translate(_LOWER) in entry.prompt.translate(_LOWER)
            and self.tenant in ("", entry.tenant)
            and self.model in ("", entry.model, name, fingerprint)
        )


class Ledger(Protocol):
    """Every method is atomic, also against calls of other processes. `close` must be awaited.

    All methods raise LedgerUnavailable if the ledger does not answer, or sqlite3.Error.
    """

    is_shared: bool
    """Whether other processes write to the ledger."""
    outages: int
    """How often the ledger did not answer or had lost its contents. After a rise the index has to be repaired."""

    @property
    def id(self) -> str:
        """Distinguishes the rows of this ledger in an index that others use too. Empty until the ledger answers."""

    # ---- look-up

    async def find_exact(self, exact: str) -> Entry | None:
        """Returns the entry of the request with this digest, or None."""

    async def entries(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Returns those entries of `ids` that still exist, by id, with their states."""

    async def record_hit(self, state_id: str, k: int, credit: float) -> None:
        """Records that a state was used at step `k` and saved `credit` steps that no other state would have saved.

        Ignores evicted states.
        """

    # ---- keeping and dropping

    async def reserve(self, bytes_needed: int, entries_needed: int, budget: Budget) -> Dropped:
        """Evicts the states with the lowest scores until the needed bytes and entries fit into `budget`.

        The age L rises with each eviction.
        """

    async def insert(self, entry: Entry, key: np.ndarray, budget: Budget | None = None) -> Inserted:
        """Adds an entry with its states; each state gets its prior benefit. `key` has shape (dim,).

        Drops the older entry of the same request, and evicts states until `budget` is kept.
        """

    async def drop_states(self, state_ids: Iterable[str]) -> Dropped:
        """Drops states, for example because their bytes are missing or damaged."""

    async def drop_entries(self, target: Target) -> Dropped:
        """Purges: drops every entry that matches `target`.

        Works in pieces, so that other calls can run in between. An entry that is inserted meanwhile may stay.
        """

    async def adopt(self, family: str, model: str, now: float) -> int:
        """Makes `family` the family of new entries. Entries of other families are retired at `now`, or stay retired.

        `now` is in seconds since the epoch. Returns how many entries are retired.
        """

    async def drop_retired(self, before: float, limit: int) -> Dropped:
        """Drops up to `limit` entries that were retired at or before `before` (seconds since the epoch)."""

    # ---- looking at it

    async def totals(self) -> Totals: ...

    async def policy_record(self) -> PolicyRecord:
        """Returns what the policy records besides the states."""

    async def list_entries(self, target: Target, limit: int) -> tuple[list[Entry], int]:
        """Returns the newest `limit` matching entries, and how many entries match in total."""

    async def state_ids(self) -> set[str]: ...

    async def models(self) -> set[str]:
        """Returns NAME@FINGERPRINT of every model that made an entry."""

    async def indexed_ids(self, kind: StateKind) -> IndexedIds:
        """Returns the entries of the adopted family that the index must hold, and those of others that it may hold."""

    async def keys(self, ids: Iterable[str]) -> list[KeyRow]:
        """Returns the index rows of those entries of `ids` that still exist."""

    # ---- together with others

    async def check(self) -> None:
        """Makes a cheap call that fails if the other methods would fail."""

    async def lease(self, name: str, seconds: float) -> bool:
        """Reserves the work `name` for this process for `seconds`. Returns False if the work is reserved already."""

    async def close(self) -> None: ...
