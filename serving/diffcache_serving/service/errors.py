"""Converts our errors to failures that a caller reads, for every protocol. Clients never see the text of a bug."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from diffcache_core.generation import InvalidRequest, Violation
from diffcache_serving.cache.ledger import LedgerUnavailable
from diffcache_serving.engine.engine import EngineStopped
from diffcache_serving.queueing import QueueFull
from diffcache_serving.values.errors import DeviceFailed, DeviceOutOfMemory, NotFinite

OOM_RETRY_SECONDS = 1.0
DRAIN_RETRY_SECONDS = 5.0  # about the time a client needs to find another replica, or the new pod
LEDGER_RETRY_SECONDS = 5.0


class Draining(Exception):
    """The server is shutting down."""


class Kind(Enum):
    INVALID = auto()  # the caller's fault, field by field
    EXHAUSTED = auto()  # no room now
    UNAVAILABLE = auto()  # this server, or a part of it, cannot answer now
    INTERNAL = auto()


@dataclass(frozen=True)
class Failure:
    """Says why a request got no answer. `retry_seconds` is the time to wait before a retry; None if no retry helps."""

    kind: Kind
    message: str
    violations: Sequence[Violation] = ()
    retry_seconds: float | None = None


BUG = Failure(Kind.INTERNAL, "an internal error; the server's log, under this request's id, says more")


def failure_of(error: Exception) -> Failure | None:
    """Returns the failure that the caller reads. Returns None for an unknown error, which is a bug."""
    match error:
        case InvalidRequest():
            return Failure(Kind.INVALID, str(error), error.violations)
        case QueueFull():
            return Failure(Kind.EXHAUSTED, str(error), retry_seconds=error.retry_seconds)
        case DeviceOutOfMemory():
            return Failure(
                Kind.EXHAUSTED,
                "the device is out of memory: try a smaller size, or again when fewer requests run",
                retry_seconds=OOM_RETRY_SECONDS,
            )
        case NotFinite(part="encoding"):  # it depends only on the prompts
            return Failure(
                Kind.INTERNAL,
                f"{error}, so there is no picture: word the prompt or the negative prompt otherwise; if many requests "
                "end so, serve the model with dtype BFloat16 or Float32, and if that does not help copy its text "
                "encoder again",
            )
        case NotFinite():
            return Failure(
                Kind.INTERNAL,
                f"{error}, so there is no picture and nothing is kept: try another seed or a lower guidance; if many "
                "requests end so, serve the model with dtype BFloat16 or Float32",
            )
        case Draining() | EngineStopped():
            return Failure(
                Kind.UNAVAILABLE,
                "the server is shutting down: try again, on another replica",
                retry_seconds=DRAIN_RETRY_SECONDS,
            )
        case DeviceFailed():
            return Failure(
                Kind.UNAVAILABLE,
                "the device has failed and the server restarts: try again, on another replica",
                retry_seconds=DRAIN_RETRY_SECONDS,
            )
        case LedgerUnavailable():
            return Failure(Kind.UNAVAILABLE, f"the ledger does not answer: {error}", retry_seconds=LEDGER_RETRY_SECONDS)
    return None
