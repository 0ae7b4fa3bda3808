"""What a process sets for the libraries it is about to import, and for itself as the first process of a container."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path


def keep_caches_in(data_dir: Path) -> None:
    """Libraries keep their caches where we may write: a pod's root is read-only and its user has no home.

    To be called before they are imported; what the environment says already counts. Raises OSError.
    """
    os.environ.setdefault("HF_HOME", str(data_dir / "huggingface"))
    os.environ.setdefault("XDG_CACHE_HOME", str(data_dir / "cache"))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        tempfile.gettempdir()
    except FileNotFoundError:  # torch does not even import without one
        folder = data_dir / "tmp"
        folder.mkdir(exist_ok=True)
        os.environ["TMPDIR"] = str(folder)


def stay_offline() -> None:
    """The serving process has all it needs in its folders: whatever it misses, no library shall ask a hub for it."""
    os.environ["HF_HUB_OFFLINE"] = "1"


def exit_at_sigterm() -> None:
    """Linux drops a signal that the first process of a container does not handle: a pod that is deleted while it loads
    a model would hold its GPU until it is killed."""
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
