"""Reports why a process cannot start or continue: on standard error for a person, and in the termination message for
Kubernetes."""

from __future__ import annotations

import os
import sqlite3
import sys
import traceback
from pathlib import Path

from diffcache_core.foreign import printable_lines, without_credentials
from diffcache_core.names import REASON_FILE_ENVIRONMENT
from diffcache_core.reasons import Reason, build_termination_message
from diffcache_serving.cache.lock import FolderInUse
from diffcache_serving.cache.milvus_lite import MilvusLiteError
from diffcache_serving.values.errors import (
    ConfigError,
    CudaUnavailable,
    DeviceFailed,
    DeviceOutOfMemory,
    DownloadFailed,
    FolderUnusable,
    LedgerError,
    ModelError,
    PortTaken,
)

UNUSABLE = 2  # exit status: the user has to change something before the next start
FAILED = 1  # exit status: the next start may succeed, after a bug or a failed device

REASONS: tuple[tuple[type[Exception], Reason], ...] = (
    (ConfigError, Reason.INVALID_CONFIG),
    (CudaUnavailable, Reason.CUDA_UNAVAILABLE),
    (DownloadFailed, Reason.DOWNLOAD_FAILED),
    (ModelError, Reason.MODEL_LOAD_FAILED),
    (DeviceOutOfMemory, Reason.OUT_OF_MEMORY),
    (MemoryError, Reason.OUT_OF_MEMORY),
    (DeviceFailed, Reason.DEVICE_FAILED),
    (FolderInUse, Reason.VOLUME_IN_USE),
    (MilvusLiteError, Reason.INDEX_FAILED),
    (PortTaken, Reason.PORT_TAKEN),
    (FolderUnusable, Reason.VOLUME_UNUSABLE),
    (LedgerError, Reason.VOLUME_UNUSABLE),
    (sqlite3.Error, Reason.VOLUME_UNUSABLE),
    (OSError, Reason.VOLUME_UNUSABLE),
)
"""The reason of each type of error. The first matching row applies. An error without a row is a bug."""


def reason_of(error: Exception) -> Reason:
    return next((reason for kind, reason in REASONS if isinstance(error, kind)), Reason.CRASHED)


def report_exit(error: Exception) -> int:
    """Writes the reason to standard error and to the file named by DIFFCACHE_REASON_FILE. Returns the exit status."""
    reason = reason_of(error)
    if reason is Reason.CRASHED:
        sys.stderr.write(printable_lines(without_credentials("".join(traceback.format_exception(error)))))
        text = f"{type(error).__name__}: {error}"
    else:
        text = str(error) or type(error).__name__
        _say(text)
    path = os.environ.get(REASON_FILE_ENVIRONMENT)
    if path:
        try:
            Path(path).write_text(build_termination_message(reason, text) + "\n", encoding="utf-8", errors="replace")
        except OSError as failure:  # the reason itself is on standard error already
            _say(f"the reason was not written: {failure}")
    return FAILED if reason in (Reason.CRASHED, Reason.DEVICE_FAILED) else UNUSABLE


def _say(text: str) -> None:
    sys.stderr.write(f"diffcache: {printable_lines(without_credentials(text))}\n")
    sys.stderr.flush()
