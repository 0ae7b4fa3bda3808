"""The only writer of its process. It keeps new entries, evicts, forgets and purges, one operation after the other.

The order of a write is: bytes, ledger, index. The order of a drop is: ledger, index, bytes. So, even if the process is
killed between two of these, the ledger never names bytes that were not written. The repair at the next start, or the
sweep of a shared store, removes what is left over.
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
"""Maximum size of the tensors that wait to be written. 64 MiB are 2,000 latents of Stable Diffusion 1.x at 512 pixels.
Beyond it new states are dropped. A higher value handles longer bursts and uses more memory."""

PURGED_KEPT = 10_000
"""Number of purged entry ids that are remembered, so that pictures which running requests still draw from them are not
kept. It is as many as an embedded index holds. A run that ends after more purged entries than this would be kept."""

log = structlog.get_logger("diffcache.cache")


class Keeper:
    """One task that writes what is put into one queue. `close` must be awaited."""

    def __init__(
        self, ledger: Ledger, store: StateStore, index: Index, events: CacheEvents, kind: StateKind, budget: Budget
    ) -> None:
        self.pending = Pending()
        self.write_lock = asyncio.Lock()  # held during every change of ledger, index and store
        self._ledger, self._store, self._index, self._events = ledger, store, index, events
        self._kind, self._budget = kind, budget
        self.deletions = Deletions(store, events)
        self._totals = Totals()
        # A future in the queue is set when everything put before it is done; None ends the task.
        self._queue: asyncio.Queue[PendingEntry | asyncio.Future[None] | None] = asyncio.Queue()
        self._purges: set[asyncio.Task[Dropped]] = set()
        self._purged: deque[str] = deque(maxlen=PURGED_KEPT)
        self.task = asyncio.create_task(self._keep_all(), name="keeper")
        events.may_hold(budget.bytes)

    @property
    def is_full(self) -> bool:
        """Returns whether one more state of the usual size would evict another one."""
        latest = self._totals
        size = latest.bytes // latest.states if latest.states else 0
        return latest.plus(1, 1, size).exceeds(self._budget)

    def put(self, pending: PendingEntry) -> bool:
        """Queues an entry and returns True; look-ups find it from now on.

        If too much waits already, the entry is dropped and the result is False.
        """
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
        """Drops a state whose bytes are missing or damaged. Counts it once, even if several requests found it."""
        async with self.write_lock:
            dropped = await self._ledger.drop_states([state_id])
            self._events.dropped(reason, len(dropped.states))
            await self.let_go(dropped)
            await self.count()

    async def purge(self, target: Target) -> Dropped:
        """Drops all entries that match `target`, including those in the queue.

        The purge runs to its end even if the caller is cancelled.
        """
        task = asyncio.create_task(self._purge(target))
        self._purges.add(task)
        task.add_done_callback(self._purges.discard)
        return await asyncio.shield(task)

    async def purge_retired(self, before: float) -> int:
        """Drops entries that were retired at or before `before` (seconds since the epoch). Returns their number.

        Works in pieces, so that other writes can run in between.
        """
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
        """Uses a new budget from now on, and evicts what no longer fits."""
        async with self.write_lock:
            self._budget = budget
            self._events.may_hold(budget.bytes)
            await self.let_go(await self._ledger.reserve(0, 0, budget), "capacity")
            await self.count()

    def was_purged(self, entry_id: str) -> bool:
        """Returns whether a recent purge has dropped this entry. A run that resumed from it may still be going on."""
        return entry_id in self._purged

    async def let_go(self, dropped: Dropped, reason: Eviction | None = None) -> None:
        """Removes from index and store what was dropped from the ledger. Without a `reason` it does not count as an
        eviction."""
        if not dropped.states:
            return
        try:
            for gone in pieces(await self._without_use(dropped)):
                await self._index.delete(gone)
        except (IndexUnavailable, LedgerUnavailable) as error:  # look-ups skip dead rows; the next repair removes them
            self._events.operation_failed("delete")
            log.warning("index rows were not deleted", error=str(error))
        await self.deletions.delete(state.id for state in dropped.states)
        if reason:
            self._events.evicted(reason, len(dropped.states))

    async def count(self) -> None:
        """Reads how much the cache holds, including what other processes wrote."""
        self._totals = await self._ledger.totals()
        self._events.holds(self._totals.entries, self._totals.bytes)

    async def close(self) -> None:
        """Writes what is queued and ends the task."""
        if self.task.done():  # a bug ended it, so a purge would wait forever
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
        """Returns the entries from which no run can resume any more.

        An entry may lose its last state of the kind to resume from and still keep other states.
        """
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
        except LedgerUnavailable:  # the insertion may have succeeded, so the bytes stay; if not, a sweep removes them
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
