"""Why a serving process cannot start or go on, in one word: the operator puts it into a condition of the resource."""

from __future__ import annotations

from enum import StrEnum

from diffcache_core.foreign import quoted

MESSAGE_CHARACTERS = 1000
"""Of `REASON: message`. A kubelet keeps 4096 bytes of a termination message; a status is read by people."""


class Reason(StrEnum):
    INVALID_CONFIG = "InvalidConfig"  # the config, or a file it names
    CUDA_UNAVAILABLE = "CudaUnavailable"  # a GPU was asked for and there is none
    DOWNLOAD_FAILED = "DownloadFailed"  # of a model from a hub
    MODEL_LOAD_FAILED = "ModelLoadFailed"
    OUT_OF_MEMORY = "OutOfMemory"  # the device's
    DEVICE_FAILED = "DeviceFailed"  # while it served: a CUDA error that only another process gets rid of
    VOLUME_IN_USE = "VolumeInUse"  # by another process
    VOLUME_UNUSABLE = "VolumeUnusable"  # disk, permissions, ledger
    INDEX_FAILED = "IndexFailed"  # Milvus Lite does not start
    PORT_TAKEN = "PortTaken"
    CRASHED = "Crashed"  # a bug: the log holds the traceback


def build_termination_message(reason: Reason, text: str) -> str:
    """`REASON: text` in one line, cut to MESSAGE_CHARACTERS."""
    return quoted(f"{reason.value}: {text}", MESSAGE_CHARACTERS)


def parse_termination_message(message: str) -> tuple[Reason, str] | None:
    """Reason and text; None for what no serving process wrote, such as the kubelet's own messages."""
    reason, separator, text = message.partition(": ")
    if not separator or reason not in set(Reason):
        return None
    return Reason(reason), text.strip()
