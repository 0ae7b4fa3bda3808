"""Entries that were given to the keeper and are not written yet. Look-ups find them, so a process sees its own
writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from diffcache_core.cache.states import Entry
from diffcache_serving.cache.index import IndexRow, MemoryIndex, Neighbour


@dataclass(frozen=True)
class PendingEntry:
    entry: Entry  # its states have neither bytes nor checksum yet
    key: np.ndarray  # (dim,) float32
    tensors: Mapping[str, Mapping[str, torch.Tensor]]  # by state id
    is_indexed: bool  # has a state that can be resumed from

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for tensors in self.tensors.values() for t in tensors.values())


class Pending:
    """A small cache in front of the cache, in memory: it is index, ledger and store in one."""

    def __init__(self) -> None:
        self._entries: dict[str, PendingEntry] = {}
        self._exact: dict[str, str] = {}
        self._index = MemoryIndex()
        self.nbytes = 0

    def add(self, pending: PendingEntry) -> None:
        entry = pending.entry
        self._entries[entry.id] = pending
        self._exact[entry.exact] = entry.id
        self.nbytes += pending.nbytes
        if pending.is_indexed:
            self._index.add([IndexRow(entry.id, entry.space, pending.key)])

    def remove(self, entry_id: str) -> None:
        pending = self._entries.pop(entry_id, None)
        if pending is not None:
            self.nbytes -= pending.nbytes
            self._index.remove([entry_id])
            if self._exact.get(pending.entry.exact) == entry_id:
                del self._exact[pending.entry.exact]

    def holds(self, entry_id: str) -> bool:
        return entry_id in self._entries

    def find_exact(self, exact: str) -> Entry | None:
        entry_id = self._exact.get(exact)
        return None if entry_id is None else self._entries[entry_id].entry

    def nearest(self, space: str, key: np.ndarray, limit: int) -> list[Neighbour]:
        return self._index.nearest(space, key, limit)

    def entries(self, ids: list[str]) -> dict[str, Entry]:
        return {i: self._entries[i].entry for i in ids if i in self._entries}

    def load(self, entry_id: str, state_id: str) -> Mapping[str, torch.Tensor] | None:
        pending = self._entries.get(entry_id)
        return None if pending is None else pending.tensors.get(state_id)
