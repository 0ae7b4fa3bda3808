"""What keeps a serving process from starting: errors that say what to do. Light: failing needs no torch."""

from __future__ import annotations


class ConfigError(Exception):
    """The config, or a folder or file that it names, cannot be used."""


class PortTaken(Exception):
    """Somebody else listens there, or it is no address of this machine."""


class CudaUnavailable(Exception):
    """The config wants a GPU and there is none to be used."""


class DownloadFailed(Exception):
    """A model could not be fetched from its hub."""


class ModelError(Exception):
    """The model cannot be served. The message says what is wrong and what to do."""


class ScorerError(Exception):
    """A folder holds no model that can score pictures. The message says what is wrong and what to do."""


class DeviceOutOfMemory(RuntimeError):
    """The device cannot hold this request beside the others, or the model at all; smaller or later it may succeed."""


class NotFinite(ArithmeticError):
    """What the model gave holds NaN or infinity. `part` says where it showed: see metrics.NOT_FINITE_PARTS."""

    def __init__(self, part: str) -> None:
        self.part = part
        super().__init__(f"the {part} holds values that are not finite (NaN or infinity)")


class DeviceFailed(RuntimeError):
    """The device, or the thread that drives it, is lost to this process: only another process can serve."""


class LedgerError(Exception):
    """The ledger cannot be opened, or was written by a newer diffcache; it is left as it is. The message says more."""


class FolderUnusable(Exception):
    """The data folder cannot be made or written."""
