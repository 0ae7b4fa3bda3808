"""A lock that allows only one process per cache folder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

LOCK_WAIT_SECONDS = 60.0
"""Maximum time to wait for the lock. A pod that is being replaced drains for up to 25 s, and its volume may arrive
late; a minute covers both. A higher value only delays the message if another process really uses the folder."""


class FolderInUse(Exception):
    """Another process holds the folder; the message says which."""


def lock_folder(
    folder: Path, wait: float = LOCK_WAIT_SECONDS, on_wait: Callable[[str], None] = lambda holder: None
) -> IO[str]:
    """Locks the folder for this process until the returned file is closed or the process ends, even if it is killed.

    Calls `on_wait(holder)` once if another process holds the lock. Raises FolderInUse after `wait` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "LOCK").open("a+")
    deadline = time.monotonic() + wait
    logged = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            if not logged:
                on_wait(holder)
                logged = True
            if time.monotonic() >= deadline:
                file.close()
                raise FolderInUse(
                    f"{folder} is in use by {holder}: stop that one, or choose another folder with --data-dir"
                ) from None
            time.sleep(0.2)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
    file.flush()
    return file
