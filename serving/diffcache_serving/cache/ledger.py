"""The durable record of entries and states: the authority that index and store follow.

States are kept in the order of the policy's score; the lowest goes first, and the age L rises to its score. Two
implementations keep one contract: SQLite for a process of its own, Redis for processes that share a cache.
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
    """The ledger did not answer. A look-up makes a miss of it, a keeper drops what it has."""


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
    """What left the ledger, and has to leave index and store next."""

    states: tuple[StateRecord, ...] = ()
    entries: tuple[str, ...] = ()  # without any state left

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
    """What an insertion did."""

    replaced: Dropped = Dropped()  # the same request's older entry
    evicted: Dropped = Dropped()  # to stay within the budget
    was_purged: bool = False  # nothing was inserted: a purge meant this entry, or the one that it resumed from


@dataclass(frozen=True)
class IndexedIds:
    """Which entries an index may hold."""

    mine: set[str]  # of the adopted family, with a state of the kind in question: what has to be there
    others: set[str]  # of other families: another process may still search for them


@dataclass(frozen=True)
class KeyRow:
    entry_id: str
    space: str
    key: np.ndarray  # (dim,) float32


@dataclass(frozen=True)
class Target:
    """Which entries a purge or a listing means: all that every given field matches."""

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
    """Every method is atomic against all others, of other processes too. `close` must be awaited.

    All raise LedgerUnavailable when the ledger is out of reach, or sqlite3.Error.
    """

    is_shared: bool
    """Whether other processes write to it."""
    outages: int
    """How often it was out of reach or had lost its contents. Whoever sees it rise has to bring the index into step."""

    @property
    def id(self) -> str:
        """Distinguishes this ledger's rows in an index that others use too. Empty until it has been reached."""

    # ---- look-up

    async def find_exact(self, exact: str) -> Entry | None:
        """The entry of this very request."""

    async def entries(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Those of `ids` that still exist, with their states."""

    async def record_hit(self, state_id: str, k: int, credit: float) -> None:
        """A state was used at step `k` and saved `credit` steps that no other would have. Ignores evicted states."""

    # ---- keeping and dropping

    async def reserve(self, bytes_needed: int, entries_needed: int, budget: Budget) -> Dropped:
        """Evicts the lowest scores until so much more fits into `budget`; the age L rises with each."""

    async def insert(self, entry: Entry, key: np.ndarray, budget: Budget | None = None) -> Inserted:
        """Adds an entry with its states and gives them their prior. The same request's older entry is dropped, and
        whatever has to go so that `budget` is kept."""

    async def drop_states(self, state_ids: Iterable[str]) -> Dropped:
        """Forgets states whose bytes are gone or damaged."""

    async def drop_entries(self, target: Target) -> Dropped:
        """Forgets every entry that `target` matches: a purge. In pieces, so others come between; what is inserted
        meanwhile may be left."""

    async def adopt(self, family: str, model: str, now: float) -> int:
        """From now on entries are of `family`; those of others are retired since `now`, unless they already were.

        `now` is in seconds since the epoch. Returns how many entries are retired.
        """

    async def drop_retired(self, before: float, limit: int) -> Dropped:
        """Forgets up to `limit` entries that were retired at or before `before` (seconds since the epoch)."""

    # ---- looking at it

    async def totals(self) -> Totals: ...

    async def policy_record(self) -> PolicyRecord:
        """What the policy remembers beside the states."""

    async def list_entries(self, target: Target, limit: int) -> tuple[list[Entry], int]:
        """The newest `limit` matching entries, and how many match in all."""

    async def state_ids(self) -> set[str]: ...

    async def models(self) -> set[str]:
        """NAME@FINGERPRINT of every model that an entry was made by."""

    async def indexed_ids(self, kind: StateKind) -> IndexedIds:
        """What the index has to hold of the adopted family, and may hold of others."""

    async def keys(self, ids: Iterable[str]) -> list[KeyRow]:
        """The rows to put into the index for those of `ids` that still exist."""

    # ---- together with others

    async def check(self) -> None:
        """Something cheap that fails when the others would."""

    async def lease(self, name: str, seconds: float) -> bool:
        """Whether the work called `name` is this process's for so long. Nobody else gets it meanwhile."""

    async def close(self) -> None: ...
