"""The keys of all entries that at least one simulated cache holds. Exact search with one matrix product per request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffcache_core.simulator.cache import Neighbour


@dataclass(frozen=True)
class Near:
    """The rows of a space that are near one key, for all caches. Each cache selects the rows that it holds."""

    ids: np.ndarray  # (n,) int64 entry ids, most similar first
    similarities: np.ndarray  # (n,) float32
    held: np.ndarray  # (caches, n) bool

    def of(self, cache: int, limit: int) -> tuple[Sequence[Neighbour], bool]:
        """Returns what the index of this cache would find, and whether it has more rows than `limit`."""
        mine = np.flatnonzero(self.held[cache])[: limit + 1]
        near = [Neighbour(int(self.ids[i]), min(1.0, float(self.similarities[i]))) for i in mine[:limit]]
        return near, len(mine) > limit


@dataclass
class _Space:
    keys: np.ndarray  # (rows, dim) float32
    ids: np.ndarray  # (rows,) int64
    held: np.ndarray  # (caches, rows) bool
    free: list[int]


class KeyTable:
    """All caches share the rows, so each key is stored once. Its row is freed when the last cache lets go of it."""

    def __init__(self, caches: int) -> None:
        self._caches = caches
        self._spaces: dict[bytes, _Space] = {}
        self._rows: dict[int, tuple[bytes, int]] = {}  # by entry id

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        return sum(s.keys.nbytes + s.ids.nbytes + s.held.nbytes for s in self._spaces.values())

    def ids(self) -> list[int]:
        return list(self._rows)

    def add(self, entry: int, space: bytes, key: np.ndarray) -> None:
        """Adds a row that no cache holds yet. The caller then must `hold` it, or `sweep` it."""
        table = self._spaces.setdefault(space, self._empty(len(key)))
        if not table.free:
            self._grow(table)
        row = table.free.pop()
        table.keys[row], table.ids[row] = key, entry
        self._rows[entry] = (space, row)

    def hold(self, cache: int, entry: int) -> None:
        space, row = self._rows[entry]
        self._spaces[space].held[cache, row] = True

    def let_go(self, cache: int, entry: int) -> bool:
        """Removes the entry from one cache. Returns True if no cache holds it any more; then its row is freed."""
        space, row = self._rows[entry]
        self._spaces[space].held[cache, row] = False
        return self.sweep(entry)

    def sweep(self, entry: int) -> bool:
        """Frees the row of an entry if no cache holds it. Returns whether it was freed."""
        space, row = self._rows[entry]
        table = self._spaces[space]
        if table.held[:, row].any():
            return False
        table.ids[row] = -1
        table.keys[row] = 0.0
        table.free.append(row)
        del self._rows[entry]
        if len(table.free) == len(table.ids):
            del self._spaces[space]
        return True

    def near(self, space: bytes, key: np.ndarray, floor: float) -> Near:
        """Returns all rows of the space whose similarity to `key` is at least `floor`."""
        table = self._spaces.get(space)
        if table is None:
            return Near(np.empty(0, np.int64), np.empty(0, np.float32), np.empty((self._caches, 0), bool))
        similarities = table.keys @ key  # numpy releases the GIL meanwhile
        rows = np.flatnonzero((similarities >= floor) & (table.ids >= 0))
        rows = rows[np.argsort(-similarities[rows], kind="stable")]
        return Near(table.ids[rows], similarities[rows], table.held[:, rows])

    def _empty(self, dim: int) -> _Space:
        return _Space(np.empty((0, dim), np.float32), np.empty(0, np.int64), np.empty((self._caches, 0), bool), [])

    def _grow(self, table: _Space) -> None:
        before = len(table.ids)
        extra = max(1, before // 2)  # many spaces hold one entry, because each new negative prompt makes a space
        dim = table.keys.shape[1]
        table.keys = np.concatenate([table.keys, np.zeros((extra, dim), np.float32)])
        table.ids = np.concatenate([table.ids, np.full(extra, -1, np.int64)])
        table.held = np.concatenate([table.held, np.zeros((self._caches, extra), bool)], axis=1)
        table.free = list(range(before + extra - 1, before - 1, -1))
