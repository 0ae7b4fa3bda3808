"""The ledger of one process, in SQLite.

Everything runs on one thread with one connection, so every method is atomic against the others.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import (
    HitStatistics,
    Policy,
    PolicyRecord,
    StateUse,
    prior_benefit,
    touch,
    trajectory_weights,
)
from diffcache_core.cache.space import FORMAT_VERSION
from diffcache_core.cache.states import Entry, StateKind, StateRecord
from diffcache_serving.cache.ledger import Dropped, IndexedIds, Inserted, KeyRow, Target, Totals
from diffcache_serving.cache.ledger_schema import add_what_is_missing, create_tables
from diffcache_serving.cache.pieces import PIECE, pieces
from diffcache_serving.values.errors import LedgerError

T = TypeVar("T")

_RETIRED_SCORE = -1.0  # below any score of a policy, so that unusable states are evicted first
_ENTRY = (
    "id, space, exact, prompt_digest, prompt, tenant, model, seed, steps, skipped, similarity, depth, parent, created"
)
_STATE = "id, entry_id, kind, k, bytes, checksum, uses, score"


class SqliteLedger:
    """The ledger in SQLite. `SqliteLedger.open` opens it; `close` must be awaited. See `Ledger` for the methods."""

    is_shared = False
    outages = 0

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._db: sqlite3.Connection
        self._id = ""
        self._family = ""  # the family of new entries
        self._leases: dict[str, float] = {}  # end of each lease by name, on the monotonic clock
        self._total = Totals()  # kept up to date, because counting all rows for each insertion would cost O(n)

    @classmethod
    async def open(
        cls,
        path: Path | None,
        policy: Policy,
        on_set_aside: Callable[[str], None] = lambda why: None,
    ) -> SqliteLedger:
        """Opens or creates the ledger at `path`. With None the ledger is in memory.

        A file that is not a ledger, or has an older format that cannot be read, is renamed. Then `on_set_aside(why)` is
        called and a new ledger begins. Raises LedgerError if the format is newer, or if the file cannot be opened.
        """
        ledger = cls(policy)
        try:
            await asyncio.get_running_loop().run_in_executor(ledger._thread, ledger._open, path, on_set_aside)
        except sqlite3.OperationalError as error:  # SQLite names no file
            remedy = "free some space there, and check that the folder may be written"
            raise LedgerError(f"{path}: {error}: {remedy}") from None
        return ledger

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
        await asyncio.to_thread(self._thread.shutdown)

    @property
    def id(self) -> str:
        return self._id

    # ---- look-up ---------------------------------------------------------------------------------------------------

    async def find_exact(self, exact: str) -> Entry | None:
        def work() -> Entry | None:
            found = self._entries("exact = ?", [exact])
            return found[0] if found else None

        return await self._run(work)

    async def entries(self, ids: Sequence[str]) -> dict[str, Entry]:
        def work(piece: list[str]) -> list[Entry]:
            return self._entries(f"id IN ({','.join('?' * len(piece))})", piece)

        return {entry.id: entry for piece in pieces(ids) for entry in await self._run(work, piece)}

    async def record_hit(self, state_id: str, k: int, credit: float) -> None:
        await self._run(self._record_hit, state_id, k, credit)

    # ---- keeping and dropping --------------------------------------------------------------------------------------

    async def reserve(self, bytes_needed: int, entries_needed: int, budget: Budget) -> Dropped:
        dropped = [await self._run(self._reserve, bytes_needed, entries_needed, budget, PIECE)]
        while len(dropped[-1].states) == PIECE:
            dropped.append(await self._run(self._reserve, bytes_needed, entries_needed, budget, PIECE))
        return Dropped.all_of(dropped)

    async def insert(self, entry: Entry, key: np.ndarray, budget: Budget | None = None) -> Inserted:
        return await self._run(self._insert, entry, key, budget)

    async def drop_states(self, state_ids: Iterable[str]) -> Dropped:
        return Dropped.all_of([await self._run(self._drop_states, piece) for piece in pieces(state_ids)])

    async def adopt(self, family: str, model: str, now: float) -> int:
        return await self._run(self._adopt, family, model, now)

    async def drop_retired(self, before: float, limit: int) -> Dropped:
        def work() -> Dropped:
            due = "SELECT family FROM retired WHERE since <= ?"
            rows = self._db.execute(f"SELECT id FROM entries WHERE family IN ({due}) LIMIT ?", [before, limit])
            ids = [row[0] for row in rows]
            states = self._states(f"entry_id IN ({','.join('?' * len(ids))})", ids)
            return self._drop_states([s.id for s in states])

        return await self._run(work)

    async def models(self) -> set[str]:
        return await self._run(lambda: {row[0] for row in self._db.execute("SELECT DISTINCT model FROM entries")})

    async def drop_entries(self, target: Target) -> Dropped:
        def work() -> Dropped:
            where, values = _where(target)
            meant = f"SELECT id FROM entries WHERE {where} LIMIT {PIECE}"
            return self._drop_states([s.id for s in self._states(f"entry_id IN ({meant})", values)])

        dropped = [await self._run(work)]
        while dropped[-1].entries:
            dropped.append(await self._run(work))
        return Dropped.all_of(dropped)

    # ---- looking at it ---------------------------------------------------------------------------------------------

    async def totals(self) -> Totals:
        return await self._run(lambda: self._total)

    async def policy_record(self) -> PolicyRecord:
        def work() -> PolicyRecord:
            statistics = HitStatistics(int(self._meta("hits", 0)), float(self._meta("credits", 0.0)))
            return PolicyRecord(
                float(self._meta("age", 0.0)), statistics, dict(self._db.execute("SELECT k, hits FROM grants"))
            )

        return await self._run(work)

    async def list_entries(self, target: Target, limit: int) -> tuple[list[Entry], int]:
        def work() -> tuple[list[Entry], int]:
            where, values = _where(target)
            total = self._db.execute(f"SELECT count(*) FROM entries WHERE {where}", values).fetchone()[0]
            return self._entries(f"{where} ORDER BY created DESC, rowid DESC LIMIT {int(limit)}", values), total

        return await self._run(work)

    async def state_ids(self) -> set[str]:
        return await self._run(lambda: {row[0] for row in self._db.execute("SELECT id FROM states")})

    async def indexed_ids(self, kind: StateKind) -> IndexedIds:
        with_kind = "SELECT id FROM entries WHERE family = ? AND id IN (SELECT entry_id FROM states WHERE kind = ?)"

        def work() -> IndexedIds:
            mine = self._db.execute(with_kind, [self._family, kind])
            others = self._db.execute("SELECT id FROM entries WHERE family != ?", [self._family])
            return IndexedIds({row[0] for row in mine}, {row[0] for row in others})

        return await self._run(work)

    async def keys(self, ids: Iterable[str]) -> list[KeyRow]:
        query = "SELECT id, space, key FROM entries WHERE id = ?"

        def work(piece: list[str]) -> list[KeyRow]:
            rows = [row for i in piece for row in self._db.execute(query, [i])]
            return [KeyRow(i, space, np.frombuffer(key, np.float32)) for i, space, key in rows]

        return [row for piece in pieces(ids) for row in await self._run(work, piece)]

    async def check(self) -> None:
        return None

    async def lease(self, name: str, seconds: float) -> bool:
        now = time.monotonic()
        if self._leases.get(name, now) > now:
            return False
        self._leases[name] = now + seconds
        return True

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
            for suffix in ("-wal", "-shm"):  # these files belong to the ledger file
                extra = path.with_name(path.name + suffix)
                if extra.exists():
                    extra.rename(aside.with_name(aside.name + suffix))
            on_set_aside(
                f"{path} is {'of an older format' if sound else 'damaged'}: kept as {aside.name}, a new ledger begins"
            )
            db = sqlite3.connect(path, check_same_thread=False)
            has_tables = False
        db.execute("PRAGMA journal_mode = WAL")
        # The ledger survives kill -9. A power cut may lose the last entries, but cannot damage the file.
        db.execute("PRAGMA synchronous = NORMAL")
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
        # Some entries are older than the records of families. Those of the same model are treated as ours. If they are
        # not, they fit no request's space, and they are evicted when room is needed.
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

    def _reserve(self, bytes_needed: int, entries_needed: int, budget: Budget, most: int = sys.maxsize) -> Dropped:
        """Evicts at most `most` states."""
        states: list[StateRecord] = []
        entries: list[str] = []
        while self._total.states and self._total.plus(entries_needed, 0, bytes_needed).exceeds(budget):
            if len(states) == most:
                break
            lowest = self._states("1 ORDER BY score, created, id LIMIT 1", [])[0]
            self._set_meta("age", max(float(self._meta("age", 0.0)), lowest.score))
            dropped = self._drop_states([lowest.id])
            states += dropped.states
            entries += dropped.entries
        return Dropped(tuple(states), tuple(entries))

    def _insert(self, entry: Entry, key: np.ndarray, budget: Budget | None) -> Inserted:
        older = self._states("entry_id IN (SELECT id FROM entries WHERE exact = ? OR id = ?)", [entry.exact, entry.id])
        replaced = self._drop_states([s.id for s in older])
        evicted = Dropped()
        if budget is not None:
            evicted = self._reserve(sum(s.bytes for s in entry.states), 1, budget)
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
        saves = {s.id: s.k or entry.steps for s in entry.states}  # the most steps that a hit can save
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
        return Inserted(replaced, evicted)

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


def _where(target: Target) -> tuple[str, list[str]]:
    """Returns the SQL condition for `Target.matches`, and its values."""
    clauses, values = ["1"], []
    for column, value in (("id", target.entry_id), ("prompt", target.prompt), ("tenant", target.tenant)):
        if value:
            clauses.append(f"{column} = ?")
            values.append(value)
    if target.prompt_contains:
        clauses.append("instr(lower(prompt), lower(?)) > 0")
        values.append(target.prompt_contains)
    if target.model:  # the column holds NAME@FINGERPRINT
        clauses.append("? IN (model, substr(model, 1, instr(model, '@') - 1), substr(model, instr(model, '@') + 1))")
        values.append(target.model)
    return " AND ".join(clauses), values
