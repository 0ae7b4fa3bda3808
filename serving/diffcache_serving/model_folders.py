"""The folders of models from a hub. Only one process at a time may change them. Models that are no longer served are
removed after a grace period."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from diffcache_serving.engine.sources import COMPLETE_MARKER, MODELS_FOLDER

RETIRED_MARKER = ".diffcache-retired"  # its mtime is the time of retirement


class FoldersLocked(Exception):
    """Another process is changing the folders."""


@contextlib.contextmanager
def lock_folders(data_dir: Path, *, wait: bool) -> Iterator[None]:
    """Locks the folders. If another process holds the lock, waits for it with `wait`, else raises FoldersLocked."""
    folder = data_dir / MODELS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "LOCK").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise FoldersLocked from None
        yield


def unretire(folder: Path) -> None:
    """Says that the model in `folder` is needed again."""
    (folder / RETIRED_MARKER).unlink(missing_ok=True)


def retire_others(data_dir: Path, current: Path) -> None:
    """Says that only `current` is served from now on. All others are retired now, or stay retired.

    `current` may be elsewhere, even in a read-only folder.
    """
    for folder in _folders(data_dir):
        marker = folder / RETIRED_MARKER
        if folder == current:
            unretire(folder)
        elif not marker.exists():
            marker.touch()


def remove_retired(data_dir: Path, before: float) -> None:
    """Removes models that were retired at or before `before` (seconds since the epoch).

    Does nothing while a download runs; a later call removes them.
    """
    due = [folder for folder in _folders(data_dir) if _retired_since(folder) <= before]
    if not due:
        return
    with contextlib.suppress(FoldersLocked), lock_folders(data_dir, wait=False):
        for folder in due:
            if _retired_since(folder) <= before:  # a download may have unretired it meanwhile
                (folder / COMPLETE_MARKER).unlink(missing_ok=True)  # first, so that half a model never looks complete
                shutil.rmtree(folder)


def _folders(data_dir: Path) -> list[Path]:
    models = data_dir / MODELS_FOLDER
    return [path for path in models.iterdir() if path.is_dir()] if models.is_dir() else []


def _retired_since(folder: Path) -> float:
    try:
        return (folder / RETIRED_MARKER).stat().st_mtime
    except FileNotFoundError:
        return float("inf")
