"""What must match exactly for a state to be usable, and the digests that stand for it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, fields

FORMAT_VERSION = 1
"""Of states, keys and ledger. Raised when an older cache can no longer be read as it lies."""


_ALWAYS = frozenset({"grid", "format_version"})
"""Fields with a default that are in the digest all the same: they were before defaults were left out."""


@dataclass(frozen=True)
class TrajectoryGrid:
    """A `Trajectory` state lies on the grid of its scheduler and N; a `Clean` state lies on none."""

    scheduler: str  # class name and config, as one digest
    steps: int


@dataclass(frozen=True)
class Space:
    """Every field separates: two requests share states only where all of them are equal.

    A new field gets a default, the value that all earlier entries have: at its default it is left out of the digest, so
    that an upgrade keeps every cache. Adapters have no field because none can be loaded yet: the fingerprint covers the
    weights.
    """

    tenant: str  # empty when the cache is shared by all tenants
    model: str  # fingerprint of the weights and configs
    embedder: str  # fingerprint of what makes the keys
    height: int  # pixels
    width: int
    dtype: str  # of the latents
    guidance: float
    negative_prompt: tuple[int, ...]  # token ids
    grid: TrajectoryGrid | None = None
    format_version: int = FORMAT_VERSION

    def digest(self) -> str:
        """64 hexadecimal digits; the only thing about a space that leaves the process."""
        values = asdict(self)
        for field in fields(self):
            if field.name not in _ALWAYS and field.default is not MISSING and values[field.name] == field.default:
                del values[field.name]
        return sha256_of_json(values)


def exact_digest(space: str, prompt: tuple[int, ...], seed: int, steps: int, scheduler: str) -> str:
    """What makes two requests the same request: an equal space, prompt (token ids), seed, N and scheduler."""
    return sha256_of_json([space, prompt, seed, steps, scheduler])


def sha256_of_json(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
