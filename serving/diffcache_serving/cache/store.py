"""Where the bytes of states lie: an obstore folder or, in tests, memory; s3.py has buckets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, MemoryStore, ObjectStore

SUFFIX = ".safetensors"

DELETIONS = 16
"""At once: a bucket takes 10 ms for each. More are done sooner, and take connections from look-ups."""

REFUSALS = 32
"""Deletions that fail before the rest is left alone: a bucket that does not answer takes 10 s for each. More get past
single locked objects, fewer give up a dead bucket sooner."""


class StoreFull(Exception):
    """The volume has no room. The message is the operating system's."""


class NotDeleted(Exception):
    """Bytes that are still there. The text is the store's own, of the first failure."""

    def __init__(self, state_ids: list[str], error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.state_ids = state_ids


class StateStore:
    """Bytes by state id. Writing is atomic: a reader sees all of a state or nothing."""

    is_shared = False
    """Whether other processes write there."""
    _folder: Path | None = None

    def __init__(self, folder: Path | None) -> None:
        """`folder`: where states lie, made if missing; None keeps them in memory."""
        self._folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._store: ObjectStore = MemoryStore() if folder is None else LocalStore(folder)

    async def put(self, state_id: str, data: bytes) -> None:
        """Raises StoreFull when the volume is, OSError or obstore's errors for the rest."""
        try:
            await obstore.put_async(self._store, path_of(state_id), data)
        except (BaseError, OSError) as error:
            if "os error 28" in str(error) or "os error 122" in str(error):  # ENOSPC, EDQUOT
                raise StoreFull(str(error).splitlines()[0]) from None
            raise

    async def get(self, state_id: str) -> bytes:
        """Raises FileNotFoundError when there is no such state."""
        try:
            return bytes(await (await obstore.get_async(self._store, path_of(state_id))).bytes_async())
        except NotFoundError as error:
            raise FileNotFoundError(state_id) from error

    async def delete(self, state_ids: Iterable[str]) -> None:
        """What is not there needs no deleting. Raises NotDeleted, those first that were not tried any more."""
        rest, failed = iter(state_ids), dict[str, Exception]()

        async def work() -> None:
            while len(failed) < REFUSALS and (state_id := next(rest, None)) is not None:
                try:
                    await obstore.delete_async(self._store, path_of(state_id))
                except (FileNotFoundError, NotFoundError):
                    pass
                except (BaseError, OSError) as error:
                    failed[state_id] = error

        await asyncio.gather(*(work() for _ in range(DELETIONS)))
        if failed:
            raise NotDeleted([*rest, *failed], next(iter(failed.values())))

    async def sweep(self, known: set[str]) -> tuple[set[str], int]:
        """Removes whatever is not a state in `known`: leftovers of a killed writer, states without a ledger row.

        Returns the ids that are really there, and how many files were removed.
        """
        if self._folder is None:
            return known, 0
        return await asyncio.to_thread(_sweep, self._folder, known)

    async def check(self) -> None:
        """Whether a store outside of this machine answers."""

    async def listed(self) -> dict[str, float]:
        """Every state that is there, and when it was written (seconds since the epoch)."""
        found: dict[str, float] = {}
        async for page in obstore.list(self._store):
            for item in page:
                state_id = PurePosixPath(item["path"]).name.removesuffix(SUFFIX)
                if item["path"] == path_of(state_id):  # whatever else lies there is not ours
                    found[state_id] = item["last_modified"].timestamp()
        return found


def path_of(state_id: str) -> str:
    """Where a state lies in its store."""
    return f"{state_id[:2]}/{state_id}{SUFFIX}"  # spread over 256 folders: some file systems slow down in large ones


def _sweep(folder: Path, known: set[str]) -> tuple[set[str], int]:
    present, removed = set(), 0
    for root, _, files in os.walk(folder):
        for name in files:
            state_id = name.removesuffix(SUFFIX)
            if name.endswith(SUFFIX) and state_id in known and Path(root).name == state_id[:2]:
                present.add(state_id)
            else:
                (Path(root) / name).unlink(missing_ok=True)
                removed += 1
    return present, removed
