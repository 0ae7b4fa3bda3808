"""The events of requests for the simulated caches, as values and as bytes for other processes. They contain digests,
never text."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from diffcache_core.cache.states import StateKind
from diffcache_core.simulator.cache import SimulatedRequest

DIGEST_BYTES = 16  # bytes used of a sha256: among 2^32 digests two are equal with a probability of 2^-64


@dataclass(frozen=True)
class Asked:
    """A request arrived. If it has no key or mode BYPASS, only its steps are counted."""

    ticket: str  # the same as in its `Answered`
    space: bytes
    request: SimulatedRequest  # `exact` and `prompt` are digests
    key: np.ndarray  # (dim,) float32, L2-normalised; shape (0,) means no key
    tenant: bytes = b""  # digest, for a purge
    text: bytes = b""  # digest of the prompt, for a purge


@dataclass(frozen=True)
class Answered:
    """A request was answered."""

    ticket: str
    may_keep: bool  # False: the picture was flagged
    entry: str = ""  # entry id in the real cache, if the real cache keeps the result
    sizes: Mapping[StateKind, int] = field(default_factory=dict)  # allocated bytes of the captured states


@dataclass(frozen=True)
class Purged:
    """All entries that match every given field were purged. Without any field, all entries were purged."""

    tenant: bytes = b""
    text: bytes = b""
    entry: str = ""


Event = Asked | Answered | Purged


class UnreadableEvent(Exception):
    """The bytes are not an event of this version."""


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:DIGEST_BYTES]


def short(digest_hex: str) -> bytes:
    """Returns the first DIGEST_BYTES bytes of a digest that is given in hexadecimal digits."""
    return bytes.fromhex(digest_hex[: 2 * DIGEST_BYTES])


_LENGTH = struct.Struct("<I")


def encode(event: Event) -> bytes:
    """Returns the length of a JSON header, the header, and the key, as bytes."""
    document: dict[str, object]
    key = b""
    if isinstance(event, Asked):
        document = asdict(event)
        del document["key"]
        key = event.key.astype("<f4").tobytes()
    else:
        document = asdict(event)
    document["is"] = type(event).__name__
    header = json.dumps(document, default=lambda value: value.hex(), separators=(",", ":")).encode()
    return _LENGTH.pack(len(header)) + header + key


def decode(data: bytes) -> Event:
    """Returns the event. Raises UnreadableEvent if the bytes are not a valid event."""
    try:
        (length,) = _LENGTH.unpack_from(data)
        document = json.loads(data[_LENGTH.size : _LENGTH.size + length])
        key = np.frombuffer(data[_LENGTH.size + length :], "<f4")
        kind = document.pop("is")
        if kind == "Asked":
            request = document["request"]
            request |= {name: bytes.fromhex(request[name]) for name in ("exact", "prompt")}
            document |= {name: bytes.fromhex(document[name]) for name in ("space", "tenant", "text")}
            return Asked(**document | {"request": SimulatedRequest(**request), "key": key})
        if kind == "Answered":
            document["sizes"] = {StateKind(name): int(size) for name, size in document["sizes"].items()}
            return Answered(**document)
        return Purged(bytes.fromhex(document["tenant"]), bytes.fromhex(document["text"]), document["entry"])
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnreadableEvent(repr(error)) from None
