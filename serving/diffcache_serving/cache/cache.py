"""The cache as the server uses it: look up, keep, list, purge. It is repaired at the start and closed in order."""

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
"""Deadline of a look-up over index, ledger and store. With a higher value every request waits longer while the index
is slow. A denoising step on a GPU takes 20 to 50 ms, so a longer wait is not worth four saved steps."""

START_SECONDS = 20.0
"""Maximum time that a start waits for the index. An embedded index is ready in 3 s; an unreachable one is given up
after 10 s. A higher value delays a pod whose Milvus hangs. With a lower value more pods serve before their index is
complete."""

SWEEP_SECONDS = 3600.0
"""Time between two sweeps of a shared store. One process sweeps for all. A shorter time lists the bucket more often,
only for the few bytes that a killed process leaves."""

ORPHAN_SECONDS = 3600.0
"""A sweep keeps bytes without a ledger row for this time, because their writer may be about to insert the row."""

log = structlog.get_logger("diffcache.cache")


@dataclass(frozen=True)
class Repair:
    """The result of the repair at the start."""

    entries: int
    states_missing: int  # states in the ledger that had no bytes in the store
    files_swept: int  # removed files without a ledger row, left by a killed writer


class Cache:
    """The cache of one process. Call `repair` before its first use and `close` at the end."""

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
        """With `has_admission`, a full cache does not keep a picture whose parent already covers it.

        Comparisons set `has_admission` to False.
        """
        self.levels, self.kind, self.budget = levels, kind, budget
        self._ledger, self._store, self._index, self._events, self._identity = ledger, store, index, events, identity
        self._look_up_seconds, self._has_admission = look_up_seconds, has_admission
        self._breaker = Breaker()
        self._outages_repaired: tuple[int, int] | None = None  # outages of index and ledger at the last repair
        self._background = Background(events)
        self._keeper = Keeper(ledger, store, index, events, kind, budget)
        self._finder = LookUp(ledger, store, index, self._keeper, events, levels, kind, self._background)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """Returns the tasks that run until `close`."""
        return [self._keeper.task, *self._index.tasks]

    def query(self, request: GenerationRequest, text: TextEncoding) -> CacheQuery:
        """Returns the query for a request."""
        return self._identity.query(request, text, self.kind)

    async def look_up(self, query: CacheQuery) -> Found:
        """Returns what the request can start from. Never raises: if the cache is slow or down, the result is a Miss."""
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
        except Exception as error:  # an outage raises many types, and none of them may fail a request
            self._breaker.failed(time.monotonic())
            self._events.operation_failed("look_up")
            log.warning("look-up failed, the request is a miss", error=repr(error), request_id=request.request_id)
            return Miss()
        self._breaker.succeeded()
        return found

    async def nearest(self, query: CacheQuery, before: float) -> Candidate | None:
        """Returns the most similar entry that was created before `before` (seconds since the epoch).

        Comparisons use it. Raises what index and ledger raise.
        """
        return await self._finder.nearest(query, before)

    async def resume_at(self, candidate: Candidate, k: int) -> Resume | None:
        """Returns a resume from this entry at step `k`, even if the levels do not allow it. Records no hit.

        Returns None if the entry has no state for step `k`.
        """
        return await self._finder.resume_at(candidate, k)

    def checkpoints(self, request: GenerationRequest, found: Found) -> tuple[int, ...]:
        """Returns the steps at which the run should capture `Trajectory` states.

        Only runs from noise capture them, as in the published scheme.
        """
        if self.kind is StateKind.CLEAN or found.k > 0 or not request.cache_mode.writes:
            return ()
        return checkpoints(self.levels, request.steps)

    def keep(self, query: CacheQuery, found: Found, states: list[CapturedState]) -> str:
        """Queues the states of a run and returns the new entry's id at once. Look-ups find the entry from now on.

        Returns an empty string if the result is not kept.
        """
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
        """Drops the entry that a run resumed from before it ended in NaN or infinity. It would spoil more runs."""
        if found.parent:
            self._background.start("delete", self._keeper.purge(Target(entry_id=found.parent)))

    async def totals(self) -> Totals:
        return await self._ledger.totals()

    async def list_entries(self, target: Target, limit: int) -> tuple[list[Entry], int]:
        """Returns the newest `limit` matching entries, and how many entries match in total."""
        await self.settle()
        return await self._ledger.list_entries(target, limit)

    async def purge(self, target: Target) -> Totals:
        """Drops all entries that match `target`, including those not written yet. Returns how much was dropped."""
        dropped = await self._keeper.purge(target)
        return Totals(len(dropped.entries), len(dropped.states), sum(s.bytes for s in dropped.states))

    async def settle(self) -> None:
        """Returns when everything passed to `keep` so far is written or dropped."""
        await self._keeper.settle()

    async def repair(self) -> Repair:
        """Makes ledger, store and index consistent, however the last process ended."""
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
        """Checks with cheap calls that index and ledger answer.

        At the start and after an outage it also makes the index consistent with the ledger.
        """
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
        """Checks whether the store answers, so that the metrics show it even without requests. Then repeats the
        deletions that failed before."""
        await self._store.check()
        await self._keeper.deletions.retry()

    async def sweep(self) -> None:
        """Cleans up a shared store. One of the processes does it, once in SWEEP_SECONDS.

        Removes bytes and index rows that a killed process left, and states whose bytes are missing.
        """
        if not self._store.is_shared or not await self._ledger.lease("sweep", SWEEP_SECONDS):
            return
        known = await self._ledger.state_ids()  # read before the list: the bytes of these states are already written
        listed = await self._store.listed()
        missing = await self._drop_missing(known - set(listed))
        alive = await self._ledger.state_ids()  # read after the list
        before = time.time() - ORPHAN_SECONDS
        orphans = {i for i, written in listed.items() if written < before and i not in alive}
        await self._keeper.deletions.delete(orphans)
        await self._repair_index()
        log.info("the store is swept", states=len(listed), missing=missing, removed=len(orphans))

    async def purge_retired(self, before: float) -> None:
        """Drops entries that were retired at or before `before` (seconds since the epoch), and then the index
        collections that no entry needs any more."""
        purged = await self._keeper.purge_retired(before)
        if not purged:
            return
        log.info("retired entries are purged", entries=purged)
        try:
            await self._forget_models()
        except IndexUnavailable as error:  # the repair after the outage drops them too
            log.warning("collections of retired models were not dropped yet", error=str(error))

    async def apply(self, hot: HotConfig) -> None:
        """Applies levels and capacity. Raises what the ledger raises; the levels are applied even then."""
        self.set_levels(hot.levels)
        await self.resize(Budget(hot.config.cache.capacity_bytes, hot.config.cache.max_entries))

    async def resize(self, budget: Budget) -> None:
        """Uses a new budget from now on, and evicts what no longer fits."""
        self.budget = budget
        await self._keeper.resize(budget)

    def set_levels(self, levels: Levels) -> None:
        """Uses new levels for all look-ups that begin from now on."""
        self.levels = levels
        self._finder = replace(self._finder, levels=levels)

    async def close(self) -> None:
        """Writes what is queued, then closes index and ledger."""
        await self._keeper.close()
        await self._background.close()
        await self._index.close()
        await self._ledger.close()

    async def _repair_index(self) -> None:
        there = await self._index.entry_ids()  # may take long, so the keeper may write meanwhile
        async with self._keeper.write_lock:
            # Read after `there`: an entry is written before its index row, so a row that another process adds meanwhile
            # is not mistaken for a dead one.
            wanted = await self._ledger.indexed_ids(self.kind)
            await self._index.delete(there - wanted.mine - wanted.others)
            for missing in pieces(wanted.mine - there):
                rows = await self._ledger.keys(missing)
                good = [row for row in rows if np.isfinite(row.key).all()]  # no search can find the others
                await self._index.insert([IndexRow(row.entry_id, row.space, row.key) for row in good])
        await self._forget_models()

    async def _drop_missing(self, state_ids: set[str]) -> int:
        dropped = await self._ledger.drop_states(state_ids)
        self._events.dropped("missing", len(dropped.states))
        return len(dropped.states)

    async def _forget_models(self) -> None:
        """Drops index rows of models that no entry uses.

        Retired entries may come back, so the rows of their models stay until the last of these entries is purged.
        """
        await self._index.forget_models({model.rpartition("@")[2] for model in await self._ledger.models()})
