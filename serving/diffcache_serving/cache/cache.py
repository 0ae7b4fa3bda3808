"""The cache as the server sees it: look up, keep, list, purge; repaired at start, closed in order."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, replace

import numpy as np
import structlog

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import admits
from diffcache_core.cache.resume import Candidate, Levels, checkpoints
from diffcache_core.cache.states import Entry, StateKind, StateRecord
from diffcache_core.generation import CacheMode, GenerationRequest, Result
from diffcache_serving.cache.background import Background
from diffcache_serving.cache.breaker import Breaker
from diffcache_serving.cache.events import CacheEvents
from diffcache_serving.cache.index import Index, IndexRow, IndexUnavailable
from diffcache_serving.cache.keeper import Keeper
from diffcache_serving.cache.ledger import Ledger, LedgerUnavailable, Target, Totals
from diffcache_serving.cache.look_up import LookUp
from diffcache_serving.cache.pending import PendingEntry
from diffcache_serving.cache.pieces import pieces
from diffcache_serving.cache.store import StateStore
from diffcache_serving.values.finite import is_finite
from diffcache_serving.values.found import CapturedState, Exact, Found, Miss, Resume
from diffcache_serving.values.hot_config import HotConfig
from diffcache_serving.values.identity import CacheIdentity, CacheQuery
from diffcache_serving.values.text import TextEncoding

LOOK_UP_SECONDS = 0.2
"""Deadline of a look-up over index, ledger and store. Longer waits for a slow index at the price of every request's
latency while it is slow; a denoising step on a GPU takes 20 to 50 ms, so more than this is not worth saving four."""

START_SECONDS = 20.0
"""How long a start waits for the index: an embedded one is up in 3 s, one that is out of reach is given up after 10.
More delays a pod whose Milvus hangs; less lets more pods serve before they know all they have."""

SWEEP_SECONDS = 3600.0
"""Between two sweeps of a shared store, by one process for all. A shorter time lists the bucket more often for the few
bytes that a killed process leaves."""

ORPHAN_SECONDS = 3600.0
"""A shared store's bytes without a row of the ledger are kept so long: their writer may be about to insert it."""

log = structlog.get_logger("diffcache.cache")


@dataclass(frozen=True)
class Repair:
    """What the start found."""

    entries: int
    states_missing: int  # in the ledger, without bytes
    files_swept: int  # bytes without a ledger row, leftovers of a killed writer


class Cache:
    """Made by the constructor, ready after `repair`, ended by `close`."""

    def __init__(
        self,
        ledger: Ledger,
        store: StateStore,
        index: Index,
        events: CacheEvents,
        identity: CacheIdentity,
        levels: Levels,
        kind: StateKind,
        budget: Budget,
        look_up_seconds: float = LOOK_UP_SECONDS,
        has_admission: bool = True,
    ) -> None:
        """`has_admission`: leave out, when full, what its parent covers already; False is for comparisons."""
        self.levels, self.kind, self.budget = levels, kind, budget
        self._ledger, self._store, self._index, self._events, self._identity = ledger, store, index, events, identity
        self._look_up_seconds, self._has_admission = look_up_seconds, has_admission
        self._breaker = Breaker()
        self._outages_repaired: tuple[int, int] | None = None  # of index and ledger, at the last repair
        self._background = Background(events)
        self._keeper = Keeper(ledger, store, index, events, kind, budget)
        self._finder = LookUp(ledger, store, index, self._keeper, events, levels, kind, self._background)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """Those that run until `close`."""
        return [self._keeper.task, *self._index.tasks]

    def query(self, request: GenerationRequest, text: TextEncoding) -> CacheQuery:
        """What the cache is asked with for a request."""
        return self._identity.query(request, text, self.kind)

    async def look_up(self, query: CacheQuery) -> Found:
        """What the request can start from. Never raises: a cache that is slow or down makes a miss."""
        request = query.request
        if not request.cache_mode.reads:
            return Miss(Result.BYPASS if request.cache_mode is CacheMode.BYPASS else Result.MISS)
        if not query.text.has_key:
            return Miss()
        if not self._breaker.allows(time.monotonic()):
            self._events.look_up_skipped()
            return Miss()
        try:
            async with asyncio.timeout(self._look_up_seconds):
                found = await self._finder.find(query)
        except Exception as error:  # an outage has many types, and none of them may fail a request
            self._breaker.failed(time.monotonic())
            self._events.operation_failed("look_up")
            log.warning("look-up failed, the request is a miss", error=repr(error), request_id=request.request_id)
            return Miss()
        self._breaker.succeeded()
        return found

    async def nearest(self, query: CacheQuery, before: float) -> Candidate | None:
        """The most similar entry that was made before a time (seconds since the epoch). For comparisons: raises what
        index and ledger raise."""
        return await self._finder.nearest(query, before)

    async def resume_at(self, candidate: Candidate, k: int) -> Resume | None:
        """A resume from that entry at step `k`, allowed or not; None if it has no such state. No hit is recorded."""
        return await self._finder.resume_at(candidate, k)

    def checkpoints(self, request: GenerationRequest, found: Found) -> tuple[int, ...]:
        """The steps at which the run should leave `Trajectory` states: only runs from noise do, as published."""
        if self.kind is StateKind.CLEAN or found.k > 0 or not request.cache_mode.writes:
            return ()
        return checkpoints(self.levels, request.steps)

    def keep(self, query: CacheQuery, found: Found, states: list[CapturedState]) -> str:
        """Queues what a run left and returns its entry id at once; empty if it is not kept. From then on it serves."""
        request, text = query.request, query.text
        if not request.cache_mode.writes or isinstance(found, Exact) or not text.has_key:
            return ""
        is_full = self._has_admission and self._keeper.is_full
        if not admits(is_full=is_full, granted_skip=found.granted_skip, top_skip=self.levels.top_skip):
            self._events.dropped("admission", 1)
            return ""
        if not all(is_finite(tensor) for state in states for tensor in state.tensors.values()):
            self._events.dropped("not_finite", len(states))
            return ""
        if self._keeper.was_purged(found.parent):
            self._events.dropped("purged", 1)
            return ""
        entry_id = uuid.uuid4().hex
        records = {uuid.uuid4().hex: state for state in states}
        entry = Entry(
            id=entry_id,
            space=query.space,
            exact=query.exact,
            prompt_digest=query.prompt,
            prompt=request.prompt,
            tenant=request.tenant,
            model=self._identity.model_id,
            seed=request.seed,
            steps=request.steps,
            skipped=found.k,
            similarity=1.0 if found.similarity is None else found.similarity,
            depth=found.depth,
            parent=found.parent,
            created=time.time(),
            states=tuple(StateRecord(i, entry_id, s.kind, s.k, 0, "") for i, s in records.items()),
        )
        tensors = {i: state.tensors for i, state in records.items()}
        is_indexed = any(state.kind is self.kind for state in states)
        return entry_id if self._keeper.put(PendingEntry(entry, text.key, tensors, is_indexed)) else ""

    def distrust(self, found: Found) -> None:
        """Drops the entry that a run started from and came to nothing finite: it would spoil the next one as well."""
        if found.parent:
            self._background.start("delete", self._keeper.purge(Target(entry_id=found.parent)))

    async def totals(self) -> Totals:
        return await self._ledger.totals()

    async def list_entries(self, target: Target, limit: int) -> tuple[list[Entry], int]:
        """The newest `limit` matching entries, and how many match in all."""
        await self.settle()
        return await self._ledger.list_entries(target, limit)

    async def purge(self, target: Target) -> Totals:
        """Drops all that `target` matches, what waits for the keeper included. Returns how much."""
        dropped = await self._keeper.purge(target)
        return Totals(len(dropped.entries), len(dropped.states), sum(s.bytes for s in dropped.states))

    async def settle(self) -> None:
        """Returns when everything handed to `keep` so far is written or dropped."""
        await self._keeper.settle()

    async def repair(self) -> Repair:
        """Brings ledger, store and index into step after whatever ended the last process."""
        entries = missing = swept = 0
        try:
            retired = await self._ledger.adopt(self._identity.family(self.kind), self._identity.model_id, time.time())
            if retired:
                log.info("entries of an earlier model, scheduler, dtype or kind of state are retired", entries=retired)
            if not self._store.is_shared:
                known = await self._ledger.state_ids()
                present, swept = await self._store.sweep(known)
                missing = await self._drop_missing(known - present)
            await self.resize(self.budget)  # the capacity may have been larger before
            entries = (await self._ledger.totals()).entries
        except LedgerUnavailable as error:
            log.warning("serving without a ledger until it answers: requests miss, nothing is kept", error=str(error))
        try:
            async with asyncio.timeout(START_SECONDS):
                await self.check_index()
        except TimeoutError:
            log.warning("the index is not in step yet; until it is, requests may miss")
        return Repair(entries, missing, swept)

    async def check_index(self) -> None:
        """Asks index and ledger something cheap; after an outage, and at the start, brings the index into step with the
        ledger."""
        outages = self._index.outages, self._ledger.outages
        try:
            await self._keeper.count()
            if outages == self._outages_repaired:
                await self._index.ping()
                return
            await self._repair_index()
            if self._outages_repaired is not None or any(outages):
                log.info("index and ledger answer again")
            self._outages_repaired = outages
        except (IndexUnavailable, LedgerUnavailable) as error:
            self._events.operation_failed("repair")
            what = "index" if isinstance(error, IndexUnavailable) else "ledger"
            log.warning(f"the {what} does not answer; until it does, requests may miss", error=str(error))

    async def check_store(self) -> None:
        """Has the metrics say whether the store answers, also while nobody asks for anything, and deletes what it
        refused to delete before."""
        await self._store.check()
        await self._keeper.deletions.retry()

    async def sweep(self) -> None:
        """Of a shared store, once in SWEEP_SECONDS by one of the processes: bytes and index rows that a killed process
        left go, and so do states whose bytes are gone."""
        if not self._store.is_shared or not await self._ledger.lease("sweep", SWEEP_SECONDS):
            return
        known = await self._ledger.state_ids()  # before the list: their bytes were written before
        listed = await self._store.listed()
        missing = await self._drop_missing(known - set(listed))
        alive = await self._ledger.state_ids()  # after the list
        before = time.time() - ORPHAN_SECONDS
        orphans = {i for i, written in listed.items() if written < before and i not in alive}
        await self._keeper.deletions.delete(orphans)
        await self._repair_index()
        log.info("the store is swept", states=len(listed), missing=missing, removed=len(orphans))

    async def purge_retired(self, before: float) -> None:
        """Drops entries that were retired at or before `before` (seconds since the epoch), and their collections."""
        purged = await self._keeper.purge_retired(before)
        if not purged:
            return
        log.info("retired entries are purged", entries=purged)
        try:
            await self._forget_models()
        except IndexUnavailable as error:  # an outage: the repair after it does this too
            log.warning("collections of retired models were not dropped yet", error=str(error))

    async def apply(self, hot: HotConfig) -> None:
        """Raises what the ledger raises; the levels are in force all the same."""
        self.set_levels(hot.levels)
        await self.resize(Budget(hot.config.cache.capacity_bytes, hot.config.cache.max_entries))

    async def resize(self, budget: Budget) -> None:
        """Keeps to another budget from now on; what no longer fits is evicted."""
        self.budget = budget
        await self._keeper.resize(budget)

    def set_levels(self, levels: Levels) -> None:
        """Look-ups that begin from now on go by these."""
        self.levels = levels
        self._finder = replace(self._finder, levels=levels)

    async def close(self) -> None:
        """Writes what is queued, then closes index and ledger."""
        await self._keeper.close()
        await self._background.close()
        await self._index.close()
        await self._ledger.close()

    async def _repair_index(self) -> None:
        there = await self._index.entry_ids()  # may wait for the index, so the keeper goes on meanwhile
        async with self._keeper.write_lock:
            # After `there`: a row follows its entry, so what another process adds meanwhile is not taken for dead.
            wanted = await self._ledger.indexed_ids(self.kind)
            await self._index.delete(there - wanted.mine - wanted.others)
            for missing in pieces(wanted.mine - there):
                rows = await self._ledger.keys(missing)
                good = [row for row in rows if np.isfinite(row.key).all()]  # the rest is never found
                await self._index.insert([IndexRow(row.entry_id, row.space, row.key) for row in good])
        await self._forget_models()

    async def _drop_missing(self, state_ids: set[str]) -> int:
        dropped = await self._ledger.drop_states(state_ids)
        self._events.dropped("missing", len(dropped.states))
        return len(dropped.states)

    async def _forget_models(self) -> None:
        """Retired entries may come back, so their models' rows stay until the last of them is purged."""
        await self._index.forget_models({model.rpartition("@")[2] for model in await self._ledger.models()})
