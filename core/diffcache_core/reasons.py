"""Why a serving process cannot start or continue, in one word. The operator uses it as the reason of a condition."""

from __future__ import annotations

from enum import StrEnum

from diffcache_core.foreign import quoted

MESSAGE_CHARACTERS = 1000
"""Characters of `REASON: message` at most. A kubelet keeps 4096 bytes of a termination message; people read a
status."""


class Reason(StrEnum):
    INVALID_CONFIG = "InvalidConfig"  # the config, or a file that it names, is wrong
    CUDA_UNAVAILABLE = "CudaUnavailable"  # a GPU was asked for and there is none
    DOWNLOAD_FAILED = "DownloadFailed"  # a model could not be downloaded from a hub
    MODEL_LOAD_FAILED = "ModelLoadFailed"
    OUT_OF_MEMORY = "OutOfMemory"  # the memory of the device is full
    DEVICE_FAILED = "DeviceFailed"  # a CUDA error while serving; only a new process recovers
    VOLUME_IN_USE = "VolumeInUse"  # another process uses the volume
    VOLUME_UNUSABLE = "VolumeUnusable"  # a problem of disk, permissions or ledger
    INDEX_FAILED = "IndexFailed"  # Milvus Lite does not start
    PORT_TAKEN = "PortTaken"
    CRASHED = "Crashed"  # a bug: the log has the traceback


def build_termination_message(reason: Reason, text: str) -> str:
    """Returns `REASON: text` in one line, cut to MESSAGE_CHARACTERS."""
    return quoted(f"{reason.value}: {text}", MESSAGE_CHARACTERS)


def parse_termination_message(message: str) -> tuple[Reason, str] | None:
    """Returns reason and text; None if no serving process wrote the message, such as one of the kubelet's own."""
    reason, separator, text = message.partition(": ")
    if not separator or reason not in set(Reason):
        return None
    return Reason(reason), text.strip()
