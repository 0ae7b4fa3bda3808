"""The record of all measurements on disk, so that a stopped calibration can continue.

Each line is one JSON object: first the settings, then one finished item per line. A line is valid only with its
newline, so an incomplete last line means that its item is measured again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from diffcache_serving.calibration.settings import CalibrationError

FORMAT = 1  # format of the lines; increase it when older files cannot be read any more


class Record:
    """An append-only file of items by key. Use it as a context manager."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        """Opens or creates `path`. Raises CalibrationError if it has other settings or is not a record."""
        self.path = path
        header = json.loads(json.dumps({"format": FORMAT, **settings}))  # as it is read again: tuples become lists
        lines, torn_at = _read_lines(path)
        self._items: dict[str, dict[str, Any]] = {}
        if lines:
            _check_header(path, lines[0], header)
            for line in lines[1:]:
                self._items[line["key"]] = line["item"]
        self._file = path.open("ab")
        self._file.truncate(torn_at)
        if not lines:
            self._write(header)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._items

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._items[key]

    def add(self, key: str, item: dict[str, Any]) -> None:
        """Adds an item. It is on disk when this returns."""
        self._write({"key": key, "item": item})
        self._items[key] = item

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Returns the complete lines, and the offset in bytes after the last of them."""
    data = path.read_bytes() if path.is_file() else b""
    whole, newline, _ = data.rpartition(b"\n")
    try:
        lines = [json.loads(line) for line in whole.split(b"\n")] if newline else []
        if any(not isinstance(line, dict) for line in lines) or any({"key", "item"} - set(v) for v in lines[1:]):
            raise ValueError("a line is no item")
    except (ValueError, RecursionError) as error:
        raise CalibrationError(
            f"--work-dir: {path} is damaged ({error}): remove it to measure anew, or give another folder"
        ) from None
    return lines, len(whole) + len(newline)


def _check_header(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    if names:
        changes = ", ".join(f"{name} was {found.get(name)}, is {wanted.get(name)}" for name in names)
        raise CalibrationError(
            f"--work-dir: {path} was measured with other settings ({changes}): give another folder, or remove the file"
        )
