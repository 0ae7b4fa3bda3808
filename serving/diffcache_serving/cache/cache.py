"""The cache: look up, keep, purge; index, ledger and store kept in step.

Writing goes bytes, ledger, index; dropping goes ledger, index, bytes. So whatever is killed between two of them, the
ledger never names bytes that were not written, and `repair` at the next start finds what is left over.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog
import torch

from diffcache_core.generation import CacheMode, GenerationRequest, Result
from diffcache_core.policies import admits, credit_of_hit
from diffcache_core.resume import Candidate, Decision, Levels, Limits, checkpoints, choose_resume
from diffcache_core.space import Space, TrajectoryGrid, exact_digest, sha256_of_json
from diffcache_core.states import Entry, StateKind, StateRecord, allocated_bytes
from diffcache_serving.cache import codec
from diffcache_serving.cache.breaker import Breaker
from diffcache_serving.cache.found import CapturedState, Exact, Found, Miss, Resume
from diffcache_serving.cache.index import Index, IndexRow, IndexUnavailable
from diffcache_serving.cache.ledger import Budget, Dropped, Ledger, Target, Totals
from diffcache_serving.cache.pending import Pending, PendingEntry
from diffcache_serving.cache.store import StateStore, StoreFull
from diffcache_serving.engine.adapter import TextEncoding
from diffcache_serving.metrics import Metrics

LOOK_UP_SECONDS = 0.2
"""Deadline of a look-up over index, ledger and store. Longer waits for a slow index at the price of every request's
latency while it is slow; a denoising step on a GPU takes 20 to 50 ms, so more than this is not worth saving four."""

NEIGHBOURS, WIDENED = 16, 64
"""Rows asked of the index, and asked for once more when an unseen row could offer more."""

LOAD_TRIES = 3
"""The best choice and at most two others, when bytes are gone or damaged."""

KEEP_QUEUE_BYTES = 64 * 2**20
"""Tensors that wait for the keeper: 64 MiB are 2,000 latents of Stable Diffusion 1.x at 512 pixels. Beyond it new
states are dropped; a higher value survives longer bursts and holds more memory."""

REPAIR_RETRY_SECONDS = 5.0

log = structlog.get_logger("diffcache.cache")


@dataclass(frozen=True)
class CacheIdentity:
    """What the spaces of one serving process have in common."""

    model_name: str
    model: str  # fingerprint
    embedder: str
    dtype: str
    scheduler: Callable[[], str]  # digest of class and config
    shared: bool  # by all tenants


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
        metrics: Metrics,
        identity: CacheIdentity,
        levels: Levels,
        kind: StateKind,
        budget: Budget,
        look_up_seconds: float = LOOK_UP_SECONDS,
    ) -> None:
        self.levels, self.kind, self.budget = levels, kind, budget
        self._ledger, self._store, self._index, self._metrics, self._identity = ledger, store, index, metrics, identity
        self._look_up_seconds = look_up_seconds
        self._breaker = Breaker()
        self._pending = Pending()
        self._queue: asyncio.Queue[PendingEntry | None] = asyncio.Queue()
        self._write_lock = asyncio.Lock()  # keeper, purge and drops change index and store one after the other
        self._tasks: set[asyncio.Task[None]] = set()
        self._totals = Totals()
        self._keeper = asyncio.create_task(self._keep_all(), name="keeper")
        metrics.capacity_bytes.set(budget.bytes)

    # ---- look-up ---------------------------------------------------------------------------------------------------

    async def look_up(self, request: GenerationRequest, text: TextEncoding) -> Found:
        """What the request can start from. Never raises: a cache that is slow or down makes a miss."""
        if not request.cache_mode.reads:
            return Miss(Result.BYPASS if request.cache_mode is CacheMode.BYPASS else Result.MISS)
        if not text.has_key:
            return Miss()
        if not self._breaker.allows(time.monotonic()):
            self._metrics.look_ups_skipped.inc()
            return Miss()
        try:
            async with asyncio.timeout(self._look_up_seconds):
                found = await self._find_exact(request, text) or await self._find_resume(request, text)
        except Exception as error:  # an outage has many types, and none of them may fail a request
            self._breaker.failed(time.monotonic())
            self._metrics.index_errors.labels("look_up").inc()
            log.warning("look-up failed, the request is a miss", error=repr(error), request_id=request.request_id)
            return Miss()
        self._breaker.succeeded()
        return found

    async def _find_exact(self, request: GenerationRequest, text: TextEncoding) -> Exact | None:
        if not request.seed_is_explicit:
            return None
        exact = self._exact(request, text)
        entry = self._pending.find_exact(exact) or await self._ledger.find_exact(exact)
        if entry is None or entry.skipped * 100 > request.max_skip * entry.steps:
            return None
        if entry.similarity < request.min_similarity:  # its own run resumed from something less alike than allowed
            return None
        final = next((s for s in entry.states if s.kind is StateKind.CLEAN), None)
        loading = time.perf_counter()
        tensors = None if final is None else await self._load(final)
        if final is None or tensors is None:
            return None
        self._start("hit", self._credit_exact(request, text, entry, final))
        return Exact(request.steps, entry.depth, entry.id, tensors, time.perf_counter() - loading)

    async def _find_resume(self, request: GenerationRequest, text: TextEncoding) -> Resume | Miss:
        if not self.levels.table:
            return Miss()
        decision = await self._decide(request, text)
        loading = time.perf_counter()
        for choice in decision.choices[:LOAD_TRIES]:
            tensors = await self._load(choice.state)
            if tensors is None:
                continue
            credit = credit_of_hit(choice.k, choice.k_without)
            self._start("hit", self._ledger.record_hit(choice.state.id, choice.k, credit))
            self._metrics.similarity.observe(choice.similarity)
            uninterrupted = self.kind is StateKind.TRAJECTORY and choice.own_run
            return Resume(
                k=choice.k,
                depth=choice.depth + (0 if uninterrupted else 1),
                parent=choice.state.entry_id,
                similarity=choice.similarity,
                kind=choice.state.kind,
                own_run=choice.own_run,
                tensors=tensors,
                granted_skip=min(self.levels.skip_at(choice.similarity), request.max_skip),
                load_seconds=time.perf_counter() - loading,
            )
        return Miss()

    async def _decide(self, request: GenerationRequest, text: TextEncoding, without: str = "") -> Decision:
        """The choice among the nearest entries, `without` one of them."""
        space = self._space(request, text).digest()
        limits = Limits(request.steps, self.kind, request.min_similarity, request.max_skip)
        decision = Decision((), conclusive=True)
        for limit in (NEIGHBOURS, WIDENED):
            near = await self._index.search(space, text.key, limit)
            complete = len(near) < limit
            near += self._pending.nearest(space, text.key, limit)
            found = {n.entry_id: max(-1.0, min(1.0, n.similarity)) for n in near}  # float32 rounds a cosine past 1
            entries = await self._ledger.entries(list(found)) | self._pending.entries(list(found))
            dead = set(found) - set(entries)
            if dead:
                self._start("delete", self._index.delete(dead))
            candidates = sorted(
                (
                    Candidate(
                        entry_id=entry.id,
                        similarity=found[entry.id],
                        states=entry.states,
                        depth=entry.depth,
                        same_prompt=entry.prompt_digest == _digest_of(text),
                        same_seed=entry.seed == request.seed,
                    )
                    for entry in entries.values()
                    if entry.id != without and entry.space == space
                ),
                key=lambda candidate: -candidate.similarity,
            )
            decision = choose_resume(candidates, self.levels, limits, complete=complete)
            if decision.conclusive:
                return decision
        self._metrics.inconclusive.inc()
        return decision

    async def _credit_exact(
        self,
        request: GenerationRequest,
        text: TextEncoding,
        entry: Entry,
        final: StateRecord,
    ) -> None:
        """An exact hit saved what no other entry would have saved: found out after the answer, off its path."""
        decision = await self._decide(request, text, without=entry.id) if self.levels.table else Decision((), True)
        without = decision.choices[0].k if decision.choices else 0
        await self._ledger.record_hit(final.id, request.steps, credit_of_hit(request.steps, without))

    async def _load(self, state: StateRecord) -> Mapping[str, torch.Tensor] | None:
        """The tensors of a state; None, and the state is dropped, when its bytes are gone or damaged."""
        pending = self._pending.load(state.entry_id, state.id)
        if pending is not None:
            return pending
        try:
            data = await self._store.get(state.id)
            return await asyncio.to_thread(codec.decode, state.id, data, state.checksum)
        except FileNotFoundError:
            reason = "missing"
        except codec.DamagedState as error:
            reason = "damaged"
            log.warning("a damaged state is dropped", error=str(error))
        self._metrics.dropped.labels(reason).inc()
        self._start("delete", self._forget(state.id))
        return None

    async def _forget(self, state_id: str) -> None:
        async with self._write_lock:
            await self._let_go(await self._ledger.drop_states([state_id]))

    # ---- keeping ---------------------------------------------------------------------------------------------------

    def checkpoints(self, request: GenerationRequest, found: Found) -> tuple[int, ...]:
        """The steps at which the run should leave `Trajectory` states: only runs from noise do, as published."""
        if self.kind is StateKind.CLEAN or found.k > 0 or not request.cache_mode.writes:
            return ()
        return checkpoints(self.levels, request.steps)

    def keep(self, request: GenerationRequest, text: TextEncoding, found: Found, states: list[CapturedState]) -> str:
        """Queues what a run left and returns its entry id at once; empty if it is not kept. From then on it serves."""
        if not request.cache_mode.writes or isinstance(found, Exact) or not text.has_key:
            return ""
        if not admits(is_full=self._is_full(), granted_skip=found.granted_skip, top_skip=self.levels.top_skip):
            self._metrics.dropped.labels("admission").inc()
            return ""
        entry_id = uuid.uuid4().hex
        records = {uuid.uuid4().hex: state for state in states}
        entry = Entry(
            id=entry_id,
            space=self._space(request, text).digest(),
            exact=self._exact(request, text),
            prompt_digest=_digest_of(text),
            prompt=request.prompt,
            tenant=request.tenant,
            model=f"{self._identity.model_name}@{self._identity.model}",
            seed=request.seed,
            steps=request.steps,
            skipped=found.k,
            similarity=1.0 if found.similarity is None else found.similarity,
            depth=found.depth,
            parent=found.parent,
            created=time.time(),
            states=tuple(StateRecord(i, entry_id, s.kind, s.k, 0, "") for i, s in records.items()),
        )
        pending = PendingEntry(
            entry,
            text.key,
            {i: s.tensors for i, s in records.items()},
            is_indexed=any(s.kind is self.kind for s in states),
        )
        if self._pending.nbytes + pending.nbytes > KEEP_QUEUE_BYTES:
            self._metrics.dropped.labels("queue").inc(len(records))
            return ""
        self._pending.add(pending)
        self._queue.put_nowait(pending)
        return entry_id

    async def _keep_all(self) -> None:
        while (pending := await self._queue.get()) is not None:
            try:
                async with self._write_lock:
                    if self._pending.holds(pending.entry.id):  # else it was purged meanwhile
                        await self._write(pending)
            except Exception as error:
                reason = "disk" if _is_full_disk(error) else "error"
                self._metrics.dropped.labels(reason).inc(len(pending.entry.states))
                log.warning("a generation was not kept", reason=reason, error=repr(error))
            finally:
                self._pending.remove(pending.entry.id)
                self._queue.task_done()
        self._queue.task_done()

    async def _write(self, pending: PendingEntry) -> None:
        encoded = {i: await asyncio.to_thread(codec.encode, i, tensors) for i, tensors in pending.tensors.items()}
        states = tuple(
            replace(s, bytes=allocated_bytes(len(encoded[s.id])), checksum=codec.checksum(encoded[s.id]))
            for s in pending.entry.states
        )
        needed = sum(state.bytes for state in states)
        if needed > self.budget.bytes:
            self._metrics.dropped.labels("size").inc(len(states))
            return
        await self._let_go(await self._ledger.reserve(needed, 1, self.budget), "capacity")
        try:
            for state in states:
                await self._store.put(state.id, encoded[state.id])
            replaced = await self._ledger.insert(replace(pending.entry, states=states), pending.key)
        except Exception:
            await self._store.delete(encoded)
            raise
        await self._let_go(replaced, "replaced")
        await self._count()
        if pending.is_indexed:
            await self._index.insert([IndexRow(pending.entry.id, pending.entry.space, pending.key)])

    async def _let_go(self, dropped: Dropped, reason: str = "") -> None:
        """What left the ledger leaves index and store."""
        unindexed = set(dropped.entries)
        if self.kind is StateKind.TRAJECTORY:  # an entry may have lost its last state to resume from, and keep the rest
            left = await self._ledger.entries(list({s.entry_id for s in dropped.states}))
            unindexed |= {e.id for e in left.values() if all(s.kind is not self.kind for s in e.states)}
        if unindexed:
            try:
                await self._index.delete(unindexed)
            except IndexUnavailable as error:  # the look-up tolerates dead rows, and the next start removes them
                self._metrics.index_errors.labels("delete").inc()
                log.warning("index rows were not deleted", error=str(error))
        await self._store.delete(state.id for state in dropped.states)
        if reason:
            self._metrics.evictions.labels(reason).inc(len(dropped.states))
        await self._count()

    async def _count(self) -> None:
        self._totals = await self._ledger.totals()
        self._metrics.entries.set(self._totals.entries)
        self._metrics.cache_bytes.set(self._totals.bytes)

    def _is_full(self) -> bool:
        latest = self._totals
        size = latest.bytes // latest.states if latest.states else 0
        return latest.plus(1, 1, size).exceeds(self.budget)

    # ---- care ------------------------------------------------------------------------------------------------------

    async def totals(self) -> Totals:
        return await self._ledger.totals()

    async def list_entries(self, target: Target, limit: int) -> tuple[list[Entry], int]:
        await self.settle()
        return await self._ledger.list_entries(target, limit)

    async def purge(self, target: Target) -> Totals:
        """Drops all that `target` matches, what waits for the keeper included. Returns how much."""
        await self.settle()
        async with self._write_lock:
            dropped = await self._ledger.drop_entries(target)
            await self._let_go(dropped, "purge")
        return Totals(len(dropped.entries), len(dropped.states), sum(s.bytes for s in dropped.states))

    async def repair(self) -> Repair:
        """Brings ledger, store and index into step after whatever ended the last process."""
        known = await self._ledger.state_ids()
        present, swept = await self._store.sweep(known)
        await self._ledger.drop_states(known - present)
        self._metrics.dropped.labels("missing").inc(len(known - present))
        await self._let_go(await self._ledger.reserve(0, 0, self.budget), "capacity")  # it may have been larger
        try:
            await self._repair_index()
        except IndexUnavailable as error:
            self._metrics.index_errors.labels("repair").inc()
            log.warning("the index does not answer; until it does, requests may miss", error=str(error))
            self._start("repair", self._repair_index_later())
        return Repair(self._totals.entries, len(known - present), swept)

    async def _repair_index(self) -> None:
        wanted = {row.entry_id: row for row in await self._ledger.keys(self.kind)}
        there = await self._index.entry_ids()
        await self._index.delete(there - set(wanted))
        await self._index.insert([IndexRow(r.entry_id, r.space, r.key) for i, r in wanted.items() if i not in there])

    async def _repair_index_later(self) -> None:
        while True:
            await asyncio.sleep(REPAIR_RETRY_SECONDS)
            try:
                async with self._write_lock:
                    await self._repair_index()
                log.info("the index answers again")
                return
            except IndexUnavailable:
                self._metrics.index_errors.labels("repair").inc()

    async def settle(self) -> None:
        """Returns when everything handed to `keep` so far is written or dropped."""
        await self._queue.join()

    async def close(self) -> None:
        """Writes what is queued, then closes index and ledger."""
        self._queue.put_nowait(None)
        await self._keeper
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._index.close()
        await self._ledger.close()

    def _start(self, operation: str, work: Coroutine[Any, Any, object]) -> None:
        """Runs `work` off the request's path; a failure is counted and logged, and nobody waits."""

        async def run() -> None:
            try:
                await work
            except Exception as error:
                self._metrics.index_errors.labels(operation).inc()
                log.warning("work behind a request failed", operation=operation, error=repr(error))

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- digests ---------------------------------------------------------------------------------------------------

    def _space(self, request: GenerationRequest, text: TextEncoding) -> Space:
        identity = self._identity
        grid = TrajectoryGrid(identity.scheduler(), request.steps) if self.kind is StateKind.TRAJECTORY else None
        return Space(
            tenant="" if identity.shared else request.tenant,
            model=identity.model,
            embedder=identity.embedder,
            height=request.height,
            width=request.width,
            dtype=identity.dtype,
            guidance=request.guidance,
            negative_prompt=text.negative_ids,
            grid=grid,
        )

    def _exact(self, request: GenerationRequest, text: TextEncoding) -> str:
        space = self._space(request, text).digest()
        return exact_digest(space, text.prompt_ids, request.seed, request.steps, self._identity.scheduler())


def _digest_of(text: TextEncoding) -> str:
    return sha256_of_json(text.prompt_ids)


def _is_full_disk(error: Exception) -> bool:
    return isinstance(error, StoreFull) or (isinstance(error, sqlite3.OperationalError) and "full" in str(error))
