"""The errors that several parts of a serving process raise. Their messages say what to do.

This module does not import torch, so that a process can report an error quickly.
"""

from __future__ import annotations


class ConfigError(Exception):
    """The config cannot be used, or a folder or file that it names cannot be used."""


class PortTaken(Exception):
    """Another process listens on this port, or the address does not belong to this machine."""


class CudaUnavailable(Exception):
    """The config requires a GPU, but none can be used."""


class DownloadFailed(Exception):
    """A model could not be downloaded from its hub."""


class ModelError(Exception):
    """The model cannot be served. The message says what is wrong and what to do."""


class ScorerError(Exception):
    """A folder does not hold a model that can score pictures. The message says what is wrong and what to do."""


class DeviceOutOfMemory(RuntimeError):
    """The device has not enough memory for this request beside the others, or for the model at all.

    A smaller or later request may succeed.
    """


class NotFinite(ArithmeticError):
    """The output of the model holds NaN or infinity. `part` says where it was found: see metrics.NOT_FINITE_PARTS."""

    def __init__(self, part: str) -> None:
        self.part = part
        super().__init__(f"the {part} holds values that are not finite (NaN or infinity)")


class DeviceFailed(RuntimeError):
    """The device, or the thread that drives it, has failed for this process. Only a new process can serve."""


class LedgerError(Exception):
    """The ledger cannot be opened, or a newer diffcache wrote it. It stays unchanged. The message says more."""


class FolderUnusable(Exception):
    """The data folder cannot be created or written."""
