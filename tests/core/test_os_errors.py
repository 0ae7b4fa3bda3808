"""A disk that is full is named, although the system names no file where a write fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffcache_core.os_errors import explain_os_error


def test_of_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "a\x1b" / "b").open()
    told = explain_os_error(caught.value, "another", "make it")
    assert told == f"{tmp_path}/a\\x1b/b: No such file or directory: make it"


def test_of_a_write(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as caught, Path("/dev/full").open("wb", buffering=0) as file:
        file.write(b"x")
    assert caught.value.filename is None
    room = explain_os_error(caught.value, tmp_path, "choose another folder with --data-dir")
    assert room == f"{tmp_path}: No space left on device: free some space, or choose another folder with --data-dir"
    assert explain_os_error(caught.value, tmp_path).endswith("No space left on device: free some space")
