"""What may hold a password is its owner's alone, also where a readable file lay before."""

from __future__ import annotations

import os
from pathlib import Path

from diffcache_core.private_files import make_private_folder, write_private


def test_only_the_owner_reads(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = tmp_path / "above" / "folder"
        make_private_folder(folder)
        make_private_folder(folder)
        (folder / "f.new").touch()  # of a crash
        (folder / "f").write_text("old")
        write_private(folder / "f", "new")
    finally:
        os.umask(before)
    assert (folder / "f").read_text() == "new"
    assert (folder / "f").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.iterdir()] == ["f"]
