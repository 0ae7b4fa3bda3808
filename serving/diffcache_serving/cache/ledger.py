"""The durable record of entries and states, in SQLite: the authority that index and store follow.

States are kept in the order of the policy's score; the lowest goes first, and the age L rises to its score. Everything
runs on one thread with one connection, so every method is atomic against the others.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from diffcache_core.policies import HitStatistics, Policy, StateUse, prior_benefit, touch, trajectory_weights
from diffcache_core.space import FORMAT_VERSION
from diffcache_core.states import Entry, StateKind, StateRecord
from diffcache_serving.cache.ledger_schema import add_what_is_missing, create_tables
from diffcache_serving.errors import LedgerError as LedgerError

T = TypeVar("T")

_RETIRED_SCORE = -1.0  # below any policy's score: what nobody can use goes first when room is needed
_ENTRY = (
    "id, space, exact, prompt_digest, prompt, tenant, model, seed, steps, skipped, similarity, depth, parent, created"
)
_STATE = "id, entry_id, kind, k, bytes, checksum, uses, score"


@dataclass(frozen=True)
class Budget:
    """What the cache may hold."""

    bytes: int  # allocated by states
    entries: int


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

    def where(self) -> tuple[str, list[str]]:
        clauses, values = ["1"], []
        for column, value in (("id", self.entry_id), ("prompt", self.prompt), ("tenant", self.tenant)):
            if value:
                clauses.append(f"{column} = ?")
                values.append(value)
        if self.prompt_contains:
            clauses.append("instr(lower(prompt), lower(?)) > 0")
            values.append(self.prompt_contains)
        if self.model:  # the column holds NAME@FINGERPRINT
            clauses.append(
                "? IN (model, substr(model, 1, instr(model, '@') - 1), substr(model, instr(model, '@') + 1))"
            )
            values.append(self.model)
        return " AND ".join(clauses), values


class Ledger:
    """Opened by `Ledger.open`; closed by `close`, which must be awaited."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._db: sqlite3.Connection
        self._id = ""
        self._family = ""  # of what is inserted
        self._total = Totals()  # kept up to date: counting all rows for each insertion would cost O(n)

    @classmethod
    async def open(
        cls,
        path: Path | None,
        policy: Policy,
        on_set_aside: Callable[[str], None] = lambda why: None,
    ) -> Ledger:
        """Opens or makes the ledger at `path`; None keeps it in memory.

        A file that is no ledger, or an older format that cannot be read, is renamed, `on_set_aside(why)` is told, and
        a new one begins. Raises LedgerError for a newer format, and for what cannot be opened.
        """
        ledger = cls(policy)
        await asyncio.get_running_loop().run_in_executor(ledger._thread, ledger._open, path, on_set_aside)
        return ledger

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
        self._thread.shutdown()

    @property
    def id(self) -> str:
        """Distinguishes this ledger's rows in an index that others use too."""
        return self._id

    # ---- look-up ---------------------------------------------------------------------------------------------------

    async def find_exact(self, exact: str) -> Entry | None:
        """The entry of this very request."""

        def work() -> Entry | None:
            found = self._entries("exact = ?", [exact])
            return found[0] if found else None

        return await self._run(work)

    async def entries(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Those of `ids` that still exist, with their states."""
        marks = ",".join("?" * len(ids))
        return await self._run(lambda: {e.id: e for e in self._entries(f"id IN ({marks})", list(ids))})

    async def record_hit(self, state_id: str, k: int, credit: float) -> None:
        """A state was used at step `k` and saved `credit` steps that no other would have. Ignores evicted states."""
        await self._run(self._record_hit, state_id, k, credit)

    # ---- keeping and dropping --------------------------------------------------------------------------------------

    async def reserve(self, bytes_needed: int, entries_needed: int, budget: Budget) -> Dropped:
        """Evicts the lowest scores until so much more fits into `budget`; the age L rises with each."""
        return await self._run(self._reserve, bytes_needed, entries_needed, budget)

    async def insert(self, entry: Entry, key: np.ndarray) -> Dropped:
        """Adds an entry with its states and gives them their prior. The same request's older entry is dropped."""
        return await self._run(self._insert, entry, key)

    async def drop_states(self, state_ids: Iterable[str]) -> Dropped:
        """Forgets states whose bytes are gone or damaged."""
        return await self._run(self._drop_states, list(state_ids))

    async def adopt(self, family: str, model: str, now: float) -> int:
        """From now on entries are of `family`; those of others are retired since `now`, unless they already were.

        `now` is in seconds since the epoch. Returns how many entries are retired.
        """
        return await self._run(self._adopt, family, model, now)

    async def drop_retired(self, before: float, limit: int) -> Dropped:
        """Forgets up to `limit` entries that were retired at or before `before` (seconds since the epoch)."""

        def work() -> Dropped:
            due = "SELECT family FROM retired WHERE since <= ?"
            rows = self._db.execute(f"SELECT id FROM entries WHERE family IN ({due}) LIMIT ?", [before, limit])
            ids = [row[0] for row in rows]
            states = self._states(f"entry_id IN ({','.join('?' * len(ids))})", ids)
            return self._drop_states([s.id for s in states])

        return await self._run(work)

    async def models(self) -> set[str]:
        """NAME@FINGERPRINT of every model that an entry was made by."""
        return await self._run(lambda: {row[0] for row in self._db.execute("SELECT DISTINCT model FROM entries")})

    async def drop_entries(self, target: Target) -> Dropped:
        """Forgets every entry that `target` matches."""

        def work() -> Dropped:
            where, values = target.where()
            states = self._states(f"entry_id IN (SELECT id FROM entries WHERE {where})", values)
            return self._drop_states([s.id for s in states])

        return await self._run(work)

    # ---- looking at it ---------------------------------------------------------------------------------------------

    async def totals(self) -> Totals:
        return await self._run(lambda: self._total)

    async def list_entries(self, target: Target, limit: int) -> tuple[list[Entry], int]:
        """The newest `limit` matching entries, and how many match in all."""

        def work() -> tuple[list[Entry], int]:
            where, values = target.where()
            total = self._db.execute(f"SELECT count(*) FROM entries WHERE {where}", values).fetchone()[0]
            return self._entries(f"{where} ORDER BY created DESC, rowid DESC LIMIT {int(limit)}", values), total

        return await self._run(work)

    async def state_ids(self) -> set[str]:
        return await self._run(lambda: {row[0] for row in self._db.execute("SELECT id FROM states")})

    async def keys(self, kind: StateKind) -> list[KeyRow]:
        """Every entry of the adopted family that has a state of `kind`: what its index should hold."""
        query = """SELECT id, space, key FROM entries
                   WHERE family = ? AND id IN (SELECT entry_id FROM states WHERE kind = ?)"""

        def work() -> list[KeyRow]:
            rows = self._db.execute(query, [self._family, kind])
            return [KeyRow(i, space, np.frombuffer(key, np.float32)) for i, space, key in rows]

        return await self._run(work)

    # ---- ledger thread ---------------------------------------------------------------------------------------------

    async def _run(self, work: Callable[..., T], *args: Any) -> T:
        def transaction() -> T:
            before = self._total
            try:
                with self._db:
                    return work(*args)
            except BaseException:
                self._total = before
                raise

        return await asyncio.get_running_loop().run_in_executor(self._thread, transaction)

    def _open(self, path: Path | None, on_set_aside: Callable[[str], None]) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            db = sqlite3.connect(path or ":memory:", check_same_thread=False)
        except sqlite3.OperationalError as error:
            raise LedgerError(f"{path}: {error}: move it away, or choose another folder with --data-dir") from None
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > FORMAT_VERSION:
                db.close()
                raise LedgerError(
                    f"{path} has format {version}, this diffcache knows {FORMAT_VERSION}: start "
                    "the newer version again, or choose another folder"
                )
            has_tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0
            sound = db.execute("PRAGMA quick_check").fetchone()[0] == "ok"
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                db.close()  # locked or unreadable is not damaged
                raise LedgerError(f"{path}: {error}: end whatever uses it, or choose another folder") from None
            version, has_tables, sound = 0, True, False
        if has_tables and (version < FORMAT_VERSION or not sound):
            assert path is not None
            db.close()
            aside = path.with_name(f"{path.name}.aside-{time.strftime('%Y%m%dT%H%M%S')}")
            path.rename(aside)
            for suffix in ("-wal", "-shm"):  # they belong to it
                extra = path.with_name(path.name + suffix)
                if extra.exists():
                    extra.rename(aside.with_name(aside.name + suffix))
            on_set_aside(
                f"{path} is {'of an older format' if sound else 'damaged'}: kept as {aside.name}, a new ledger begins"
            )
            db = sqlite3.connect(path, check_same_thread=False)
            has_tables = False
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")  # survives kill -9; a power cut may cost the last entries, never tear
        if not has_tables:
            create_tables(db)
        add_what_is_missing(db)
        self._db = db
        self._id = str(self._meta("id", ""))
        entries = db.execute("SELECT count(*) FROM entries").fetchone()[0]
        self._total = Totals(entries, *db.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM states").fetchone())

    def _meta(self, name: str, default: Any) -> Any:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", [name]).fetchone()
        return default if row is None else row[0]

    def _set_meta(self, name: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", [name, value])

    def _tick(self) -> int:
        clock = int(self._meta("clock", 0)) + 1
        self._set_meta("clock", clock)
        return clock

    def _states(self, where: str, values: Sequence[Any]) -> list[StateRecord]:
        rows = self._db.execute(f"SELECT {_STATE} FROM states WHERE {where}", values)
        return [StateRecord(r[0], r[1], StateKind(r[2]), *r[3:]) for r in rows]

    def _entries(self, where: str, values: Sequence[Any]) -> list[Entry]:
        found = [Entry(*row) for row in self._db.execute(f"SELECT {_ENTRY} FROM entries WHERE {where}", values)]
        return [replace(e, states=tuple(self._states("entry_id = ? ORDER BY k", [e.id]))) for e in found]

    def _use(self, state_id: str) -> StateUse | None:
        row = self._db.execute(
            "SELECT bytes, saves, benefit, uses, created, touched, age FROM states WHERE id = ?", [state_id]
        ).fetchone()
        return None if row is None else StateUse(*row)

    def _record_hit(self, state_id: str, k: int, credit: float) -> None:
        use = self._use(state_id)
        if use is None:
            return
        use = touch(use, credit, self._tick(), float(self._meta("age", 0.0)))
        self._db.execute(
            "UPDATE states SET benefit = ?, uses = ?, touched = ?, age = ?, score = ? WHERE id = ?",
            [use.benefit, use.uses, use.touched, use.age, self._policy.score(use), state_id],
        )
        self._set_meta("hits", int(self._meta("hits", 0)) + 1)
        self._set_meta("credits", float(self._meta("credits", 0.0)) + credit)
        self._db.execute("INSERT INTO grants VALUES (?, 1) ON CONFLICT DO UPDATE SET hits = hits + 1", [k])

    def _adopt(self, family: str, model: str, now: float) -> int:
        self._family = family
        # Entries from before families were recorded: those of the same model are taken for ours. If they are not, no
        # request's space fits them, and they go when room is needed.
        self._db.execute("UPDATE entries SET family = ? WHERE family = '' AND model = ?", [family, model])
        self._db.execute("DELETE FROM retired WHERE family = ? OR family NOT IN (SELECT family FROM entries)", [family])
        others = "SELECT id FROM entries WHERE family != ?"
        self._db.execute(
            "INSERT OR IGNORE INTO retired SELECT DISTINCT family, ? FROM entries WHERE family != ?", [now, family]
        )
        self._db.execute(f"UPDATE states SET score = ? WHERE entry_id IN ({others})", [_RETIRED_SCORE, family])
        mine = "SELECT id FROM entries WHERE family = ?"
        back = self._states(f"score = ? AND entry_id IN ({mine})", [_RETIRED_SCORE, family])
        for state in back:
            use = self._use(state.id)
            assert use is not None
            self._db.execute("UPDATE states SET score = ? WHERE id = ?", [self._policy.score(use), state.id])
        retired: int = self._db.execute("SELECT count(*) FROM entries WHERE family != ?", [family]).fetchone()[0]
        return retired

    def _reserve(self, bytes_needed: int, entries_needed: int, budget: Budget) -> Dropped:
        states: list[StateRecord] = []
        entries: list[str] = []
        while self._total.states and self._total.plus(entries_needed, 0, bytes_needed).exceeds(budget):
            lowest = self._states("1 ORDER BY score, created, id LIMIT 1", [])[0]
            self._set_meta("age", max(float(self._meta("age", 0.0)), lowest.score))
            dropped = self._drop_states([lowest.id])
            states += dropped.states
            entries += dropped.entries
        return Dropped(tuple(states), tuple(entries))

    def _insert(self, entry: Entry, key: np.ndarray) -> Dropped:
        older = self._states("entry_id IN (SELECT id FROM entries WHERE exact = ? OR id = ?)", [entry.exact, entry.id])
        replaced = self._drop_states([s.id for s in older])
        self._db.execute(
            f"INSERT INTO entries ({_ENTRY}, key, family) VALUES ({','.join('?' * 16)})",
            [
                entry.id,
                entry.space,
                entry.exact,
                entry.prompt_digest,
                entry.prompt,
                entry.tenant,
                entry.model,
                entry.seed,
                entry.steps,
                entry.skipped,
                entry.similarity,
                entry.depth,
                entry.parent,
                entry.created,
                key.astype(np.float32).tobytes(),
                self._family,
            ],
        )
        clock, age = self._tick(), float(self._meta("age", 0.0))
        prior = prior_benefit(HitStatistics(int(self._meta("hits", 0)), float(self._meta("credits", 0.0))))
        saves = {s.id: s.k or entry.steps for s in entry.states}  # what a hit can save at most
        weights = trajectory_weights(
            tuple(sorted(saves.values())), dict(self._db.execute("SELECT k, hits FROM grants"))
        )
        for state in entry.states:
            use = StateUse(state.bytes, saves[state.id], prior * weights[saves[state.id]], 0, clock, clock, age)
            self._db.execute(
                "INSERT INTO states VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
                [
                    state.id,
                    entry.id,
                    state.kind,
                    state.k,
                    state.bytes,
                    state.checksum,
                    self._policy.score(use),
                    use.k,
                    use.benefit,
                    use.uses,
                    use.created,
                    use.touched,
                    use.age,
                ],
            )
        self._total = self._total.plus(1, len(entry.states), sum(s.bytes for s in entry.states))
        return replaced

    def _drop_states(self, state_ids: list[str]) -> Dropped:
        states: list[StateRecord] = []
        for state_id in state_ids:
            states += self._states("id = ?", [state_id])
            self._db.execute("DELETE FROM states WHERE id = ?", [state_id])
        empty = [
            e
            for e in dict.fromkeys(s.entry_id for s in states)
            if not self._db.execute("SELECT 1 FROM states WHERE entry_id = ?", [e]).fetchone()
        ]
        for entry_id in empty:
            self._db.execute("DELETE FROM entries WHERE id = ?", [entry_id])
        self._total = self._total.plus(-len(empty), -len(states), -sum(s.bytes for s in states))
        return Dropped(tuple(states), tuple(empty))
