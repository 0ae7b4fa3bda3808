"""The digest of the contents of a model folder. Digests of single files are remembered, so that a start need not read
the files again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from diffcache_core.documents import DocumentError, read_json
from diffcache_serving.engine.sources import DIFFCACHE_FOLDER

SUFFIXES = (".json", ".safetensors", ".txt", ".bin", ".model")
MEMORY_FILE = "model-files.json"  # in the data folder

SETTLED_SECONDS = 2.0
"""The digest of a file is not remembered if the file changed less than this time before it was read: a second change
within one tick of the file system's clock (10 ms on Linux, 2 s on FAT) would not be visible. A higher value only hashes
recent files once more."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


def fingerprint(folder: Path, data_dir: Path | None = None) -> str:
    """Returns a sha256 over the names and bytes of a model's files, including those in linked folders. It leaves out
    diffcache's own folder.

    `data_dir` holds the digests of the files that were read before. Raises OSError if a file cannot be read.
    """
    memory = _Memory(None if data_dir is None else data_dir / MEMORY_FILE)
    digest = hashlib.sha256()
    for relative in sorted(_files(folder)):
        path = folder / relative
        digest.update(f"{relative.as_posix()}:{path.stat().st_size}:".encode())
        digest.update(memory.digest_of(path))
    memory.save()
    return digest.hexdigest()


def _files(folder: Path, inside: Path = Path(), above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yields the paths of the files to hash, relative to `folder`. `above` holds the real paths of all parent folders,
    because a link to one of them would never end."""
    real = os.path.realpath(folder / inside)
    if real in above:
        return
    for found in Path(real).iterdir():
        path = inside / found.name
        if found.name.startswith(".") or path.parts[0] == DIFFCACHE_FOLDER:
            continue
        if (folder / path).is_dir():
            yield from _files(folder, path, (*above, real))
        elif path.suffix in SUFFIXES and (folder / path).is_file():  # False for a broken link
            yield path


class _Memory:
    """Digests of files by their real path, with the properties that change when a file changes.

    If its own file is damaged, not ours, or not writable, that only costs time.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known = {} if path is None else _read(path)
        self._used: dict[str, list[int | str]] = {}

    def digest_of(self, path: Path) -> bytes:
        """Returns the sha256 of the file's bytes."""
        real = os.path.realpath(path)
        before = _state(real)
        known = self._known.get(real)
        if known is not None and known[:-1] == before:
            self._used[real] = known
            return bytes.fromhex(str(known[-1]))
        started = time.time_ns()
        with Path(real).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        if before == _state(real) and started - max(before[1:3]) > SETTLED_SECONDS * 1e9:
            self._used[real] = [*before, digest.hexdigest()]
        return digest.digest()

    def save(self) -> None:
        """Writes the digests that were used. It forgets the files of another model."""
        if self._path is None or self._used == self._known:
            return
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        with contextlib.suppress(OSError):
            try:
                new.write_text(json.dumps(self._used), encoding="utf-8")
                new.replace(self._path)
            finally:
                new.unlink(missing_ok=True)


def _state(path: str) -> list[int]:
    """Returns size, mtime, ctime, inode and device of a file. So a copy that keeps the mtime is still different."""
    stat = Path(path).stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]


def _read(path: Path) -> dict[str, list[int | str]]:
    try:
        document = read_json(path)
    except DocumentError:
        return {}
    return {k: v for k, v in document.items() if _is_entry(v)} if isinstance(document, dict) else {}


def _is_entry(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 6
        and all(isinstance(number, int) for number in value[:-1])
        and isinstance(value[-1], str)
        and _DIGEST.fullmatch(value[-1]) is not None
    )
