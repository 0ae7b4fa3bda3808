"""The only writer of its process: keeps new entries, evicts, forgets and purges, one after the other.

Writing goes bytes, ledger, index; dropping goes ledger, index, bytes. So whatever is killed between two of them, the
ledger never names bytes that were not written, and the repair at the next start, or the sweep of a shared store, finds
what is left over.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from dataclasses import replace

import structlog

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.states import StateKind, allocated_bytes
from diffcache_serving.cache import codec
from diffcache_serving.cache.deletions import Deletions
from diffcache_serving.cache.events import CacheEvents, Drop, Eviction
from diffcache_serving.cache.index import Index, IndexRow, IndexUnavailable
from diffcache_serving.cache.ledger import Dropped, Ledger, LedgerUnavailable, Target, Totals
from diffcache_serving.cache.pending import Pending, PendingEntry
from diffcache_serving.cache.pieces import PIECE, pieces
from diffcache_serving.cache.store import StateStore, StoreFull

QUEUE_BYTES = 64 * 2**20
"""Tensors that wait to be written: 64 MiB are 2,000 latents of Stable Diffusion 1.x at 512 pixels. Beyond it new
states are dropped; a higher value survives longer bursts and holds more memory."""

PURGED_KEPT = 10_000
"""Ids of purged entries that are remembered, so that what runs still draw from them is not kept. As many as an embedded
index holds; a run that ends after that many purges would be kept."""

log = structlog.get_logger("diffcache.cache")


class Keeper:
    """One task and one queue; `close` must be awaited."""

    def __init__(
        self, ledger: Ledger, store: StateStore, index: Index, events: CacheEvents, kind: StateKind, budget: Budget
    ) -> None:
        self.pending = Pending()
        self.write_lock = asyncio.Lock()  # held by whoever changes ledger, index and store
        self._ledger, self._store, self._index, self._events = ledger, store, index, events
        self._kind, self._budget = kind, budget
        self.deletions = Deletions(store, events)
        self._totals = Totals()
        # A future is somebody who waits for what was put before it; None ends the task.
        self._queue: asyncio.Queue[PendingEntry | asyncio.Future[None] | None] = asyncio.Queue()
        self._purges: set[asyncio.Task[Dropped]] = set()
        self._purged: deque[str] = deque(maxlen=PURGED_KEPT)
        self.task = asyncio.create_task(self._keep_all(), name="keeper")
        events.may_hold(budget.bytes)

    @property
    def is_full(self) -> bool:
        """Whether one more state of the usual size would evict another."""
        latest = self._totals
        size = latest.bytes // latest.states if latest.states else 0
        return latest.plus(1, 1, size).exceeds(self._budget)

    def put(self, pending: PendingEntry) -> bool:
        """Queues an entry; from now on it is served. False, and it is dropped, when too much waits."""
        if self.pending.nbytes + pending.nbytes > QUEUE_BYTES:
            self._events.dropped("queue", len(pending.entry.states))
            return False
        self.pending.add(pending)
        self._queue.put_nowait(pending)
        return True

    async def settle(self) -> None:
        """Returns when everything put so far is written or dropped."""
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(reached)
        await reached

    async def forget(self, state_id: str, reason: Drop) -> None:
        """Drops a state whose bytes are gone or damaged; counted once, however many requests came upon it."""
        async with self.write_lock:
            dropped = await self._ledger.drop_states([state_id])
            self._events.dropped(reason, len(dropped.states))
            await self.let_go(dropped)
            await self.count()

    async def purge(self, target: Target) -> Dropped:
        """Drops all that `target` matches, what waits in the queue included; to the end, also when nobody waits."""
        task = asyncio.create_task(self._purge(target))
        self._purges.add(task)
        task.add_done_callback(self._purges.discard)
        return await asyncio.shield(task)

    async def purge_retired(self, before: float) -> int:
        """Drops what was retired at or before `before` (seconds since the epoch), a piece at a time so that others get
        their turn. Returns how many entries that were."""
        count = 0
        while True:
            async with self.write_lock:
                dropped = await self._ledger.drop_retired(before, PIECE)
                if not dropped.states:
                    return count
                count += len(dropped.entries)
                await self.let_go(dropped, "space")
                await self.count()

    async def resize(self, budget: Budget) -> None:
        """Keeps to another budget from now on; what no longer fits is evicted."""
        async with self.write_lock:
            self._budget = budget
            self._events.may_hold(budget.bytes)
            await self.let_go(await self._ledger.reserve(0, 0, budget), "capacity")
            await self.count()

    def was_purged(self, entry_id: str) -> bool:
        """Whether a purge has dropped this entry, while a run that resumed from it was still going on."""
        return entry_id in self._purged

    async def let_go(self, dropped: Dropped, reason: Eviction | None = None) -> None:
        """What left the ledger leaves index and store; without a `reason` it is no eviction."""
        if not dropped.states:
            return
        try:
            for gone in pieces(await self._without_use(dropped)):
                await self._index.delete(gone)
        except (IndexUnavailable, LedgerUnavailable) as error:  # look-ups tolerate dead rows, the next repair ends them
            self._events.operation_failed("delete")
            log.warning("index rows were not deleted", error=str(error))
        await self.deletions.delete(state.id for state in dropped.states)
        if reason:
            self._events.evicted(reason, len(dropped.states))

    async def count(self) -> None:
        """Learns how much the cache holds, of all who write to it."""
        self._totals = await self._ledger.totals()
        self._events.holds(self._totals.entries, self._totals.bytes)

    async def close(self) -> None:
        """Writes what is queued, and ends."""
        if self.task.done():  # by a bug: nobody writes what a purge waits for
            for purge in self._purges:
                purge.cancel()
        await asyncio.gather(*self._purges, return_exceptions=True)
        self._queue.put_nowait(None)
        await asyncio.wait([self.task])

    async def _purge(self, target: Target) -> Dropped:
        await self.settle()
        async with self.write_lock:
            dropped = await self._ledger.drop_entries(target)
            self._purged.extend(dropped.entries)
            await self.let_go(dropped, "purge")
            await self.count()
        return dropped

    async def _without_use(self, dropped: Dropped) -> set[str]:
        """Entries that nobody can resume from any more. One may lose its last state for that, and keep the rest."""
        gone = set(dropped.entries)
        if self._kind is not StateKind.TRAJECTORY:
            return gone
        left = await self._ledger.entries(list({s.entry_id for s in dropped.states} - gone))
        return gone | {e.id for e in left.values() if all(s.kind is not self._kind for s in e.states)}

    async def _keep_all(self) -> None:
        while (pending := await self._queue.get()) is not None:
            if isinstance(pending, asyncio.Future):
                if not pending.done():
                    pending.set_result(None)
                continue
            try:
                async with self.write_lock:
                    await self._write(pending)
            except Exception as error:
                reason = _reason(error)
                self._events.dropped(reason, len(pending.entry.states))
                log.warning("a generation was not kept", reason=reason, error=repr(error))
            finally:
                self.pending.remove(pending.entry.id)

    async def _write(self, pending: PendingEntry) -> None:
        encoded = {i: await asyncio.to_thread(codec.encode, i, tensors) for i, tensors in pending.tensors.items()}
        states = tuple(
            replace(s, bytes=allocated_bytes(len(encoded[s.id])), checksum=codec.checksum(encoded[s.id]))
            for s in pending.entry.states
        )
        needed = sum(state.bytes for state in states)
        if needed > self._budget.bytes:
            self._events.dropped("size", len(states))
            return
        await self.let_go(await self._ledger.reserve(needed, 1, self._budget), "capacity")
        try:
            for state in states:
                await self._store.put(state.id, encoded[state.id])
            inserted = await self._ledger.insert(replace(pending.entry, states=states), pending.key, self._budget)
        except LedgerUnavailable:  # it may have arrived all the same, so its bytes stay: if not, the sweep removes them
            raise
        except Exception:
            await self.deletions.delete(encoded)
            raise
        await self.let_go(inserted.evicted, "capacity")
        await self.let_go(inserted.replaced, "replaced")
        if inserted.was_purged:
            self._events.dropped("purged", len(states))
            await self.deletions.delete(encoded)
        elif pending.is_indexed:
            await self._index.insert([IndexRow(pending.entry.id, pending.entry.space, pending.key)])
        await self.count()


def _reason(error: Exception) -> Drop:
    if isinstance(error, LedgerUnavailable):
        return "ledger"
    is_full = isinstance(error, StoreFull) or (isinstance(error, sqlite3.OperationalError) and "full" in str(error))
    return "disk" if is_full else "error"
