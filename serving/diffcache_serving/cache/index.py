"""The index finds the keys that are nearest to a key: the protocol, an exact index in memory, and a two-layer index."""

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
    space: str  # a digest; the index holds nothing else about a request
    key: np.ndarray  # (dim,) float32, L2-normalised


@dataclass(frozen=True)
class Neighbour:
    entry_id: str
    similarity: float  # cosine, -1 to 1


class IndexUnavailable(Exception):
    """The index did not answer. A look-up then returns a Miss; a write is tried again."""


class Index(Protocol):
    """All methods raise IndexUnavailable if the index does not answer."""

    @property
    def outages(self) -> int:
        """Returns how many operations have failed so far. After a rise the rows of the index may be wrong."""

    @property
    def tasks(self) -> Sequence[asyncio.Task[None]]:
        """Returns the tasks that run until `close`."""

    async def search(self, space: str, key: np.ndarray, limit: int) -> list[Neighbour]:
        """Returns up to `limit` rows of the space, most similar first. `key` has shape (dim,)."""

    async def insert(self, rows: Sequence[IndexRow]) -> None:
        """Adds rows. Replaces existing rows of the same entries."""

    async def delete(self, entry_ids: Iterable[str]) -> None: ...

    async def entry_ids(self) -> set[str]:
        """Returns the entry ids of all rows. The repair uses it."""

    async def ping(self) -> None:
        """Makes a cheap call that fails if the other methods would fail."""

    async def forget_models(self, kept: set[str]) -> None:
        """Drops this cache's rows of all models except its own model and the fingerprints in `kept`."""

    async def close(self) -> None:
        """Writes rows that are only in memory, if the index is persistent."""


class MemoryIndex:
    """Exact search with one matrix product per space. It is not persistent. Tests compare other indexes with it."""

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
        """Returns the same as `search`, without await."""
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
"""Number of rows that wait in memory for one write to the backing index. In Milvus Lite each row that is not flushed
slows a search by 0.07 ms (measured), and a flush costs 10 to 30 ms. A higher value means fewer, larger writes."""

SEARCH_ROWS = 1024
"""Maximum number of rows to ask the backing index for. A search asks for more rows than it needs, because deleted rows
may still be in the backing index and take the place of others. A higher value finds more during a large purge, but
makes these look-ups slower. Milvus refuses more than 16,384."""

RETRY_SECONDS = 5.0
"""Pause after a failed write to the backing index."""


class LayeredIndex:
    """A backing index, with a layer in memory for the rows that it does not show yet. So a process sees its own writes.

    A row leaves the memory when the backing index has confirmed it. A deletion is sent to the backing index with the
    next write, whether or not the row is there; until it is confirmed, this layer hides the row. So a failed write
    cannot show wrong rows.
    """

    def __init__(
        self,
        backing: Index,
        on_error: Callable[[Operation, Exception], None],
        flush_rows: int = FLUSH_ROWS,
        shared: bool = False,
    ) -> None:
        """`on_error(operation, error)` is called for each write that failed.

        With `shared`, other processes read the backing index too and need our rows, so each row is written at once.
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
        """Returns the entry ids of all rows. This layer also learns here whether the backing index holds any rows."""
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
        """Writes all rows and deletions to the backing index. Raises IndexUnavailable if that fails."""
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
        async with self._write_lock:  # waits for a running write, because its thread cannot be cancelled
            self._writer.cancel()
        await asyncio.wait([self._writer])
        try:
            await self.flush()
        except IndexUnavailable as error:  # nothing is lost: the next start inserts all keys from the ledger
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
