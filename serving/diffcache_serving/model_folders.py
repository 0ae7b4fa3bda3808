"""The folders of models from a hub: one at a time may change them, and those no longer served go after a while."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from diffcache_serving.engine.sources import COMPLETE_MARKER, MODELS_FOLDER

RETIRED_MARKER = ".diffcache-retired"  # its mtime says since when


class FoldersLocked(Exception):
    """Another process is changing them."""


@contextlib.contextmanager
def lock_folders(data_dir: Path, *, wait: bool) -> Iterator[None]:
    """Raises FoldersLocked if another process holds them, unless `wait`."""
    folder = data_dir / MODELS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "LOCK").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise FoldersLocked from None
        yield


def unretire(folder: Path) -> None:
    """It is wanted again."""
    (folder / RETIRED_MARKER).unlink(missing_ok=True)


def retire_others(data_dir: Path, current: Path) -> None:
    """From now on only `current` is served; the others are retired since now, unless they already were.

    `current` may lie elsewhere, where nothing can be written.
    """
    for folder in _folders(data_dir):
        marker = folder / RETIRED_MARKER
        if folder == current:
            unretire(folder)
        elif not marker.exists():
            marker.touch()


def remove_retired(data_dir: Path, before: float) -> None:
    """Removes what was retired at or before `before` (seconds since the epoch); another time if somebody downloads."""
    due = [folder for folder in _folders(data_dir) if _retired_since(folder) <= before]
    if not due:
        return
    with contextlib.suppress(FoldersLocked), lock_folders(data_dir, wait=False):
        for folder in due:
            if _retired_since(folder) <= before:  # a download may have wanted it meanwhile
                (folder / COMPLETE_MARKER).unlink(missing_ok=True)  # first: half a model must not look whole
                shutil.rmtree(folder)


def _folders(data_dir: Path) -> list[Path]:
    models = data_dir / MODELS_FOLDER
    return [path for path in models.iterdir() if path.is_dir()] if models.is_dir() else []


def _retired_since(folder: Path) -> float:
    try:
        return (folder / RETIRED_MARKER).stat().st_mtime
    except FileNotFoundError:
        return float("inf")
