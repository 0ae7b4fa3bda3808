"""The ledger of processes that share a cache, in Redis or Valkey.

**Atomic.** Every change is one Lua script (`lua/`), and Redis runs one script at a time. A script that may take long
stops after PIECE evictions and is called again, so that look-ups of other processes can run in between.

**The budget.** A reservation is not recorded, so a killed writer leaves none behind: `reserve` only evicts ahead of
time. `insert` makes room and adds in one script, so the ledger's totals never exceed the budget, however many processes
write. Between `reserve` and `insert` the bytes are in the store but in no total: at most one entry for each writing
process.

**Evicted once.** A script returns what it evicts to its caller only; that caller deletes index rows and bytes. If the
caller is killed before, a look-up drops the dead row and the hourly sweep removes the bytes.

**Never back.** A hit on a dropped state changes nothing. Ids of dropped entries are remembered for a while (`gone`), so
an insertion that arrives late or twice finds its tombstone. A purge records its target before it searches for entries.
An insertion that has not seen the latest purge has to check again. So a purge also covers entries that wait in another
process, and pictures that a run draws from a purged entry. The clocks of the two machines decide whether an entry is
older than a purge.

**Families.** Each family has its own order, so adopting a family changes no score. The orders of retired families are
emptied first, beginning with the family that was retired first. The last process that started decides which family is
the current one. During a rolling update this is the family of the newest config as soon as its first pod starts (unless
an old pod restarts meanwhile), and always after its last pod has started. The old pods continue to serve and to keep
entries of their own family. These entries are evicted first when room is needed, and are purged when the grace period
since the retirement of their family has passed. A family that comes back has its old order.

**Lost contents.** A random mark (`contents`) distinguishes a ledger that was emptied from the one that a process knew.
The process that notices it begins a new ledger under the old id, so that the index keeps its collections.

**Policy.** LCBFU only. Two formulas of `diffcache_core.cache.policies` are repeated in Lua, and the contract tests
check that they agree. Priors and constants come from that module. Redis must not evict by itself:
`maxmemory-policy noeviction`.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from importlib.resources import files
from typing import Any, TypeVar

import numpy as np
import structlog
from redis.exceptions import AskError, ClusterDownError, RedisError, ResponseError

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import CREDIT_DECAY, HitStatistics, PolicyRecord, prior_benefit, trajectory_weights
from diffcache_core.cache.space import FORMAT_VERSION
from diffcache_core.cache.states import Entry, StateKind, StateRecord
from diffcache_serving.cache.ledger import Dropped, IndexedIds, Inserted, KeyRow, LedgerUnavailable, Target, Totals
from diffcache_serving.cache.pieces import PIECE, pieces
from diffcache_serving.cache.redis_client import RedisAccess, cluster_refusal, connect
from diffcache_serving.values.errors import LedgerError

PAGE = 200  # number of entries per read when all entries are read

PURGES_KEPT = 100
"""Number of recent purges that each insertion is checked against. An entry that waited during more purges than this
would be kept."""

T = TypeVar("T")
_DATA = tuple(f.name for f in fields(Entry) if f.name not in ("id", "exact", "model", "states"))

log = structlog.get_logger("diffcache.ledger")


class RedisLedger:
    """The ledger in Redis. See `Ledger` for the methods. It connects at the first use, and again after each failure."""

    is_shared = True

    def __init__(
        self, access: RedisAccess, prefix: str, on_outcome: Callable[[bool], None] = lambda succeeded: None
    ) -> None:
        """`prefix` separates the caches on one Redis. `on_outcome(succeeded)` is called after every operation."""
        self._address = access.address
        self._redis: Any = connect(access)  # Any, because its types also cover clients that decode answers
        self._base = f"{{diffcache:{prefix}}}"
        self._on_outcome = on_outcome
        self._id = self._contents = ""
        self._family: tuple[str, str] | None = None  # family and model
        self._opening = asyncio.Lock()
        self._scripts = {path.name.removesuffix(".lua"): self._register(path.name) for path in _lua().iterdir()}
        self.outages = 0

    @classmethod
    async def open(
        cls, access: RedisAccess, prefix: str, on_outcome: Callable[[bool], None] = lambda succeeded: None
    ) -> RedisLedger:
        """Opens the ledger. Does not wait for a Redis that does not answer.

        Raises LedgerError if the address is invalid, or if Redis answers but cannot be used.
        """
        try:
            ledger = cls(access, prefix, on_outcome)
        except ValueError as error:
            raise LedgerError(f"{access.address} is not the address of a Redis: {error}") from None
        try:
            await ledger.check()
        except LedgerUnavailable as error:
            if isinstance(error.__cause__, LedgerError):
                await ledger.close()
                raise error.__cause__ from None
            log.warning("the ledger does not answer; until it does, requests miss", error=str(error))
        return ledger

    async def close(self) -> None:
        await self._redis.aclose()

    @property
    def id(self) -> str:
        return self._id

    # ---- look-up ---------------------------------------------------------------------------------------------------

    async def find_exact(self, exact: str) -> Entry | None:
        found = await self._call("find_exact", exact)
        return (await self.entries([found.decode()])).get(found.decode()) if found else None

    async def entries(self, ids: Sequence[str]) -> dict[str, Entry]:
        found = [_entry(row) for piece in pieces(ids) for row in await self._call("read", *piece)]
        return {entry.id: entry for entry in found}

    async def record_hit(self, state_id: str, k: int, credit: float) -> None:
        await self._call("hit", state_id, k, repr(float(credit)), repr(CREDIT_DECAY))

    # ---- keeping and dropping --------------------------------------------------------------------------------------

    async def reserve(self, bytes_needed: int, entries_needed: int, budget: Budget) -> Dropped:
        dropped, fits = Dropped(), 0
        while not fits:
            fits, *went = await self._call("reserve", bytes_needed, entries_needed, budget.bytes, budget.entries, PIECE)
            dropped = dropped.plus(_dropped(*went))
        return dropped

    async def insert(self, entry: Entry, key: np.ndarray, budget: Budget | None = None) -> Inserted:
        replaced, evicted, answer = Dropped(), Dropped(), b"again"
        limits = ("", "") if budget is None else (budget.bytes, budget.entries)
        model = entry.model
        while answer == b"again":
            purges, prior, grants = await self._before_insertion()
            if any(_is_meant(purge, entry) for purge in purges[1]):
                return Inserted(replaced, evicted, was_purged=True)
            saves = {s.id: s.k or entry.steps for s in entry.states}  # the most steps that a hit can save
            weights = trajectory_weights(tuple(sorted(saves.values())), grants)
            states = [
                (s.id, str(s.kind), s.k, s.bytes, s.checksum, repr(prior * weights[saves[s.id]])) for s in entry.states
            ]
            data = json.dumps({name: getattr(entry, name) for name in _DATA}, separators=(",", ":"))
            answer, *went = await self._call(
                "insert",
                *(entry.id, entry.exact, self._family[0] if self._family else "", model, repr(entry.created), data),
                *(key.astype(np.float32).tobytes(), entry.parent, purges[0], PIECE, *limits),
                *(value for state in states for value in state),
            )
            replaced, evicted = replaced.plus(_dropped(*went[:2])), evicted.plus(_dropped(*went[2:]))
        return Inserted(replaced, evicted, was_purged=answer == b"purged")

    async def drop_states(self, state_ids: Iterable[str]) -> Dropped:
        return await self._in_pieces("drop_states", list(state_ids))

    async def drop_entries(self, target: Target) -> Dropped:
        purge = {"at": time.time(), "target": asdict(target)}
        await self._call("begin_purge", json.dumps(purge), PURGES_KEPT)
        dropped: list[Dropped] = []
        async for page in self._pages():
            meant = [entry.id for entry in page if target.matches(entry)]
            dropped.append(await self._in_pieces("purge", meant))
        return Dropped.all_of(dropped)

    async def adopt(self, family: str, model: str, now: float) -> int:
        try:
            return int(await self._call("adopt", family, repr(now)))
        finally:
            self._family = (family, model)  # if Redis does not answer now, `_open` adopts the family later

    async def drop_retired(self, before: float, limit: int) -> Dropped:
        return _dropped(*await self._call("drop_retired", repr(before), limit))

    # ---- looking at it ---------------------------------------------------------------------------------------------

    async def totals(self) -> Totals:
        await self.check()
        values = await self._command(lambda r: r.hmget(self._key("meta"), ["entries", "states", "bytes"]))
        return Totals(*(int(value or 0) for value in values))

    async def policy_record(self) -> PolicyRecord:
        await self.check()
        age, hits, credit = await self._command(lambda r: r.hmget(self._key("meta"), ["age", "hits", "credits"]))
        grants = await self._command(lambda r: r.hgetall(self._key("grants")))
        return PolicyRecord(
            float(age or 0),
            HitStatistics(int(hits or 0), float(credit or 0)),
            {int(k): int(number) for k, number in grants.items()},
        )

    async def list_entries(self, target: Target, limit: int) -> tuple[list[Entry], int]:
        await self.check()
        found: list[str] = []
        total = start = 0
        if target == Target():
            total = await self._command(lambda r: r.zcard(self._key("entries")))
            found = await self._newest(0, limit)
        else:
            while ids := await self._newest(start, PAGE):
                page = await self.entries(ids)
                meant = [i for i in ids if i in page and target.matches(page[i])]
                found += meant[: limit - len(found)]
                total, start = total + len(meant), start + PAGE
        read = await self.entries(found)
        return [read[i] for i in found if i in read], total

    async def state_ids(self) -> set[str]:
        return {i async for _, (states,) in self._scan(["states"]) for i in _states_of(states)}

    async def models(self) -> set[str]:
        await self.check()
        return {name.decode() for name in await self._command(lambda r: r.hkeys(self._key("models")))}

    async def indexed_ids(self, kind: StateKind) -> IndexedIds:
        mine, others = set(), set()
        family = (self._family[0] if self._family else "").encode()
        async for entry_id, (owner, states) in self._scan(["family", "states"]):
            if owner != family:
                others.add(entry_id)
            elif str(kind) in _states_of(states).values():
                mine.add(entry_id)
        return IndexedIds(mine, others)

    async def keys(self, ids: Iterable[str]) -> list[KeyRow]:
        found: list[KeyRow] = []
        for piece in pieces(ids, PAGE):
            for entry_id, (data, key) in await self._fields(piece, ["data", "key"]):
                found.append(KeyRow(entry_id, json.loads(data)["space"], np.frombuffer(key, np.float32)))
        return found

    # ---- together with others --------------------------------------------------------------------------------------

    async def check(self) -> None:
        await self._call("check")

    async def lease(self, name: str, seconds: float) -> bool:
        await self.check()
        key, milliseconds = self._key(f"lease:{name}"), int(seconds * 1000)
        return bool(await self._command(lambda r: r.set(key, b"taken", nx=True, px=milliseconds)))

    # ---- Redis -----------------------------------------------------------------------------------------------------

    def _key(self, name: str) -> str:
        return f"{self._base}:{name}"

    def _register(self, name: str) -> Any:
        common = "" if name in ("open.lua", "common.lua") else (_lua() / "common.lua").read_text()
        return self._redis.register_script(common + (_lua() / name).read_text())

    async def _call(self, script: str, *arguments: Any) -> Any:
        """Runs a script on the contents that this process knows. Raises LedgerUnavailable if that fails."""

        async def work(_: Any) -> Any:
            contents = self._contents or await self._open()
            return await self._scripts[script](keys=[self._base], args=[contents, *arguments])

        return await self._command(work)

    async def _command(self, work: Callable[[Any], Awaitable[T]]) -> T:
        try:
            answer = await work(self._redis)
        except (RedisError, OSError, LedgerError) as raised:
            is_cluster = isinstance(raised, AskError | ClusterDownError)  # MOVED is also an AskError
            error = cluster_refusal(self._address) if is_cluster else raised
            await self._failed(error)
            raise LedgerUnavailable(f"{type(error).__name__}: {error}"[:300]) from error
        self._on_outcome(True)
        return answer

    async def _failed(self, error: Exception) -> None:
        self.outages += 1
        self._on_outcome(False)
        if isinstance(error, ResponseError) and str(error).startswith("LOST"):
            self._contents = ""
        else:  # the server may be the wrong one now: a replica, or a server that does not know the new password
            await self._redis.connection_pool.disconnect(inuse_connections=False)

    async def _open(self) -> str:
        async with self._opening:
            if not self._contents:
                if await self._told("cluster", "cluster_enabled") == 1:
                    raise cluster_refusal(self._address)
                ours = (FORMAT_VERSION, self._id or uuid.uuid4().hex, uuid.uuid4().hex)
                answer = await self._scripts["open"](keys=[self._base], args=ours)
                name, contents, version = (value.decode() for value in answer)
                if version != str(FORMAT_VERSION):
                    raise LedgerError(
                        f"{self._base} in Redis has format {version}, this diffcache knows {FORMAT_VERSION}: "
                        "start the other version again, or choose another Redis or database"
                    )
                await self._warn_of_eviction()
                if self._family is not None:
                    now = repr(time.time())
                    await self._scripts["adopt"](keys=[self._base], args=[contents, self._family[0], now])
                self._id, self._contents = name, contents
        return self._contents

    async def _told(self, section: str, name: str) -> Any:
        """Returns one value of Redis's INFO. Returns None if this user is not allowed to ask."""
        try:
            return (await self._redis.info(section)).get(name)
        except ResponseError:
            return None

    async def _warn_of_eviction(self) -> None:
        policy = await self._told("memory", "maxmemory_policy") or "noeviction"
        if policy != "noeviction":
            log.warning("Redis evicts, which tears the ledger: set maxmemory-policy noeviction", policy=policy)

    async def _before_insertion(self) -> tuple[tuple[int, list[Any]], float, dict[int, int]]:
        """Returns three values: the number of purges with the last ones, the prior benefit of a new state, and the
        grants by k."""

        async def work(redis: Any) -> Any:
            async with redis.pipeline(transaction=True) as pipeline:
                pipeline.hmget(self._key("meta"), ["purges", "hits", "credits"])
                pipeline.lrange(self._key("purges"), 0, -1)
                pipeline.hgetall(self._key("grants"))
                return await pipeline.execute()

        (count, hits, credit), purges, grants = await self._command(work)
        prior = prior_benefit(HitStatistics(int(hits or 0), float(credit or 0)))
        seen = int(count or 0), [json.loads(purge) for purge in purges]
        return seen, prior, {int(k): int(number) for k, number in grants.items()}

    async def _in_pieces(self, script: str, ids: list[str]) -> Dropped:
        return Dropped.all_of([_dropped(*await self._call(script, *piece)) for piece in pieces(ids, PAGE)])

    async def _newest(self, start: int, count: int) -> list[str]:
        key, last = self._key("entries"), start + count - 1
        ids = await self._command(lambda r: r.zrevrange(key, start, last)) if count else []
        return [i.decode() for i in ids]

    async def _pages(self) -> AsyncIterator[list[Entry]]:
        async for ids in self._id_pages():
            yield list((await self.entries(ids)).values())

    async def _scan(self, names: list[str]) -> AsyncIterator[tuple[str, list[bytes]]]:
        """Yields the fields of every entry that exists during the whole scan, and perhaps of others."""
        async for ids in self._id_pages():
            for row in await self._fields(ids, names):
                yield row

    async def _id_pages(self) -> AsyncIterator[list[str]]:
        await self.check()
        cursor, key = 0, self._key("entries")
        while True:
            cursor, found = await self._command(lambda r, at=cursor: r.zscan(key, at, count=PAGE))  # type: ignore[misc]
            yield [entry_id.decode() for entry_id, _ in found]
            if not cursor:
                return

    async def _fields(self, ids: list[str], names: list[str]) -> list[tuple[str, list[bytes]]]:
        async def work(redis: Any) -> Any:
            async with redis.pipeline(transaction=False) as pipeline:
                for entry_id in ids:
                    pipeline.hmget(self._key(f"entry:{entry_id}"), names)
                return await pipeline.execute()

        rows = await self._command(work) if ids else []
        return [(entry_id, row) for entry_id, row in zip(ids, rows, strict=True) if None not in row]


def _lua() -> Any:
    return files("diffcache_serving.cache") / "lua"


def _state(row: Sequence[bytes]) -> StateRecord:
    state_id, entry_id, kind, k, size, checksum, uses, score = (value.decode() for value in row)
    return StateRecord(state_id, entry_id, StateKind(kind), int(k), int(size), checksum, int(uses), float(score))


def _dropped(states: Sequence[Sequence[bytes]], entries: Sequence[bytes]) -> Dropped:
    return Dropped(tuple(_state(row) for row in states), tuple(entry.decode() for entry in entries))


def _entry(row: Sequence[Any]) -> Entry:
    entry_id, exact, model, data, states = row
    found = tuple(sorted((_state(state) for state in states), key=lambda state: state.k))
    return Entry(id=entry_id.decode(), exact=exact.decode(), model=model.decode(), states=found, **json.loads(data))


def _states_of(states: bytes) -> dict[str, str]:
    """Parses an entry's field `states`, which is `KIND:ID KIND:ID`. Returns the kind by state id."""
    return {i: kind for kind, _, i in (state.partition(":") for state in states.decode().split())}


def _is_meant(purge: Mapping[str, Any], entry: Entry) -> bool:
    return entry.created <= purge["at"] and Target(**purge["target"]).matches(entry)
