"""The store holds the bytes of states, in a folder or, in tests, in memory. s3.py stores them in a bucket."""

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
"""Number of deletions at the same time; a bucket takes 10 ms for each. A higher value finishes sooner, but takes
connections from look-ups."""

REFUSALS = 32
"""Number of failed deletions after which the rest is not tried. A bucket that does not answer takes 10 s for each. A
higher value gets past single locked objects; a lower value gives up a dead bucket sooner."""


class StoreFull(Exception):
    """The volume is full. The message comes from the operating system."""


class NotDeleted(Exception):
    """Some bytes could not be deleted. `state_ids` names them; the message is that of the store's first failure."""

    def __init__(self, state_ids: list[str], error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.state_ids = state_ids


class StateStore:
    """Stores bytes by state id. Writing is atomic: a reader sees all bytes of a state or nothing."""

    is_shared = False
    """Whether other processes write to the store."""
    _folder: Path | None = None

    def __init__(self, folder: Path | None) -> None:
        """`folder` holds the states; it is created if missing. With None the states are in memory."""
        self._folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._store: ObjectStore = MemoryStore() if folder is None else LocalStore(folder)

    async def put(self, state_id: str, data: bytes) -> None:
        """Writes a state. Raises StoreFull if the volume is full, or OSError or an error of obstore otherwise."""
        try:
            await obstore.put_async(self._store, path_of(state_id), data)
        except (BaseError, OSError) as error:
            if "os error 28" in str(error) or "os error 122" in str(error):  # ENOSPC, EDQUOT
                raise StoreFull(str(error).splitlines()[0]) from None
            raise

    async def get(self, state_id: str) -> bytes:
        """Returns the bytes of a state. Raises FileNotFoundError if the state does not exist."""
        try:
            return bytes(await (await obstore.get_async(self._store, path_of(state_id))).bytes_async())
        except NotFoundError as error:
            raise FileNotFoundError(state_id) from error

    async def delete(self, state_ids: Iterable[str]) -> None:
        """Deletes states; ignores ids that do not exist.

        Raises NotDeleted with the ids that remain: first those that were not tried, then those that failed.
        """
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
        """Removes all files that are not states in `known`: leftovers of a killed writer, states without a ledger row.

        Returns the ids of `known` that exist, and how many files were removed.
        """
        if self._folder is None:
            return known, 0
        return await asyncio.to_thread(_sweep, self._folder, known)

    async def check(self) -> None:
        """Checks whether a remote store answers. Does nothing for a local store."""

    async def listed(self) -> dict[str, float]:
        """Returns the id of every stored state, with the time when it was written (seconds since the epoch)."""
        found: dict[str, float] = {}
        async for page in obstore.list(self._store):
            for item in page:
                state_id = PurePosixPath(item["path"]).name.removesuffix(SUFFIX)
                if item["path"] == path_of(state_id):  # other objects in the bucket are not ours
                    found[state_id] = item["last_modified"].timestamp()
        return found


def path_of(state_id: str) -> str:
    """Returns the path of a state in its store."""
    return f"{state_id[:2]}/{state_id}{SUFFIX}"  # 256 folders, because some file systems are slow with large folders


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
