"""Explains an error of the operating system in one line."""

from __future__ import annotations

import errno
from pathlib import Path

from diffcache_core.foreign import printable

FULL = (errno.ENOSPC, errno.EDQUOT)


def explain_os_error(error: OSError, path: Path | str, remedy: str = "") -> str:
    """Returns a text with the file or folder, what is wrong with it, and what to do.

    Args:
        error: has no file name if an open file cannot be read or written.
        path: the name to use in that case.
        remedy: what to do about it. If a disk is full, the text also says to free space.
    """
    if error.errno in FULL:
        remedy = f"free some space, or {remedy}" if remedy else "free some space"
    named = error.filename if error.filename is not None else path
    text = f"{printable(str(named))}: {error.strerror or error}"
    return f"{text}: {remedy}" if remedy else text
