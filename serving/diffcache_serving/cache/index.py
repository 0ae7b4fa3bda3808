"""Which entries' keys are nearest to a key: the protocol, the exact index in memory, and the two-layer one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from diffcache_serving.cache.events import Operation
from diffcache_serving.cache.pieces import pieces


@dataclass(frozen=True)
class IndexRow:
    entry_id: str
    space: str  # digest: nothing else about a request reaches the index
    key: np.ndarray  # (dim,) float32, L2-normalised


@dataclass(frozen=True)
class Neighbour:
    entry_id: str
    similarity: float  # cosine, -1 to 1


class IndexUnavailable(Exception):
    """The index did not answer. A look-up makes a miss of it, a keeper tries again."""


class Index(Protocol):
    """All methods raise IndexUnavailable when the index is down."""

    @property
    def outages(self) -> int:
        """Operations that failed so far. Whoever sees it rise can no longer be sure of the index's rows."""

    @property
    def tasks(self) -> Sequence[asyncio.Task[None]]:
        """Those that run until `close`."""

    async def search(self, space: str, key: np.ndarray, limit: int) -> list[Neighbour]:
        """Up to `limit` rows of the space, most similar first."""

    async def insert(self, rows: Sequence[IndexRow]) -> None:
        """Adds rows, or replaces those of the same entries."""

    async def delete(self, entry_ids: Iterable[str]) -> None: ...

    async def entry_ids(self) -> set[str]:
        """Every row's entry; for the repair."""

    async def ping(self) -> None:
        """Something cheap that fails when the others would."""

    async def forget_models(self, kept: set[str]) -> None:
        """Drops this cache's rows of every model but its own and `kept`, which are fingerprints."""

    async def close(self) -> None:
        """Writes down what is only in memory, if the index remembers at all."""


class MemoryIndex:
    """Exact search by one matrix product a space. Forgets at exit; also the oracle of the tests."""

    outages = 0
    tasks: Sequence[asyncio.Task[None]] = ()

    def __init__(self) -> None:
        self._spaces: dict[str, dict[str, np.ndarray]] = {}
        self._space_of: dict[str, str] = {}
        self._stacked: dict[str, tuple[list[str], np.ndarray]] = {}  # built at the first search after a change

    def __len__(self) -> int:
        return len(self._space_of)

    def __contains__(self, entry_id: str) -> bool:
        return entry_id in self._space_of

    def rows(self) -> list[IndexRow]:
        return [IndexRow(i, space, key) for space, keys in self._spaces.items() for i, key in keys.items()]

    def nearest(self, space: str, key: np.ndarray, limit: int) -> list[Neighbour]:
        """What `search` answers, without a wait."""
        keys = self._spaces.get(space)
        if not keys:
            return []
        if space not in self._stacked:
            self._stacked[space] = (list(keys), np.stack(list(keys.values())))
        ids, matrix = self._stacked[space]
        similarities = matrix @ key
        nearest = np.argsort(-similarities, kind="stable")[:limit]
        return [Neighbour(ids[i], float(similarities[i])) for i in nearest]

    def add(self, rows: Iterable[IndexRow]) -> None:
        for row in rows:
            self.remove([row.entry_id])
            self._spaces.setdefault(row.space, {})[row.entry_id] = row.key
            self._space_of[row.entry_id] = row.space
            self._stacked.pop(row.space, None)

    def remove(self, entry_ids: Iterable[str]) -> None:
        for entry_id in entry_ids:
            space = self._space_of.pop(entry_id, None)
            if space is not None:
                del self._spaces[space][entry_id]
                self._stacked.pop(space, None)
                if not self._spaces[space]:
                    del self._spaces[space]

    async def search(self, space: str, key: np.ndarray, limit: int) -> list[Neighbour]:
        return self.nearest(space, key, limit)

    async def insert(self, rows: Sequence[IndexRow]) -> None:
        self.add(rows)

    async def delete(self, entry_ids: Iterable[str]) -> None:
        self.remove(entry_ids)

    async def entry_ids(self) -> set[str]:
        return set(self._space_of)

    async def ping(self) -> None:
        return None

    async def forget_models(self, kept: set[str]) -> None:
        return None

    async def close(self) -> None:
        return None


FLUSH_ROWS = 64
"""Rows that wait in memory for one write to the backing index. Milvus Lite's search slows by 0.07 ms for each row
that it has not flushed (measured), a flush costs it 10 to 30 ms; a higher value means fewer, larger writes."""

SEARCH_ROWS = 1024
"""Rows asked of the backing index at most: those that are deleted and still lie there crowd out others. A higher value
finds more while a large purge is under way, and makes those look-ups slower; Milvus refuses more than 16,384."""

RETRY_SECONDS = 5.0
"""Pause after a failed write to the backing index."""


class LayeredIndex:
    """A backing index, and before it in memory the rows that it does not show yet: so one reads one's own writes.

    A row leaves the memory when the backing index has confirmed it. A deletion reaches the backing index with the next
    write, whether or not the row is there; until that is confirmed, the row is hidden here. So it does not matter
    what a write that failed has left.
    """

    def __init__(
        self,
        backing: Index,
        on_error: Callable[[Operation, Exception], None],
        flush_rows: int = FLUSH_ROWS,
        shared: bool = False,
    ) -> None:
        """`on_error(operation, error)` is called for each write that failed.

        `shared`: others read the backing index, too, and wait for our rows: each goes there at once.
        """
        self._backing, self._on_error = backing, on_error
        self._flush_rows = 1 if shared else flush_rows
        self._fresh = MemoryIndex()
        self._deleted: set[str] = set()
        self._backing_is_empty = not shared  # as far as we know: see `entry_ids`
        self._wake = asyncio.Event()
        self._write_lock = asyncio.Lock()
        self._writer = asyncio.create_task(self._write_behind(), name="index-writer")

    async def search(self, space: str, key: np.ndarray, limit: int) -> list[Neighbour]:
        fresh = self._fresh.nearest(space, key, limit)
        if self._backing_is_empty:  # saves the round trip
            return fresh
        asked = max(limit, min(limit + len(self._deleted), SEARCH_ROWS))
        backed = await self._backing.search(space, key, asked)
        seen = {n.entry_id for n in fresh}
        merged = fresh + [n for n in backed if n.entry_id not in self._deleted and n.entry_id not in seen]
        return sorted(merged, key=lambda n: -n.similarity)[:limit]

    async def insert(self, rows: Sequence[IndexRow]) -> None:
        self._fresh.add(rows)
        self._deleted -= {row.entry_id for row in rows}
        self._wake_if_full()

    async def delete(self, entry_ids: Iterable[str]) -> None:
        gone = set(entry_ids)
        self._fresh.remove(gone)
        self._deleted |= gone
        self._wake_if_full()

    async def entry_ids(self) -> set[str]:
        """Asks the backing index, so it is also how this layer learns whether anything lies there."""
        async with self._write_lock:
            backed = await self._backing.entry_ids()
            self._backing_is_empty = self._backing_is_empty and not backed
        return (backed - self._deleted) | await self._fresh.entry_ids()

    @property
    def outages(self) -> int:
        return self._backing.outages

    @property
    def tasks(self) -> Sequence[asyncio.Task[None]]:
        return [self._writer]

    async def ping(self) -> None:
        await self._backing.ping()

    async def forget_models(self, kept: set[str]) -> None:
        await self._backing.forget_models(kept)

    async def flush(self) -> None:
        """Moves everything to the backing index. Raises IndexUnavailable."""
        async with self._write_lock:
            for deleted in pieces(self._deleted.copy()):
                await self._backing.delete(deleted)
                self._deleted.difference_update(deleted)
            for piece in pieces(self._fresh.rows()):
                still = [row for row in piece if row.entry_id in self._fresh]  # not deleted during an earlier piece
                await self._backing.insert(still)
                self._backing_is_empty = False
                self._fresh.remove(row.entry_id for row in still)

    async def close(self) -> None:
        async with self._write_lock:  # a write that has begun ends first: its thread would go on all the same
            self._writer.cancel()
        await asyncio.wait([self._writer])
        try:
            await self.flush()
        except IndexUnavailable as error:  # the ledger holds every key: the next start puts them in
            self._on_error("insert", error)
        await self._backing.close()

    def _wake_if_full(self) -> None:
        if len(self._fresh) + len(self._deleted) >= self._flush_rows:
            self._wake.set()

    async def _write_behind(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.flush()
            except IndexUnavailable as error:
                self._on_error("insert", error)
                await asyncio.sleep(RETRY_SECONDS)
                self._wake_if_full()
