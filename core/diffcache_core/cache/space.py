"""The space, that is what must match exactly for a state to be usable, and its digests."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, fields

FORMAT_VERSION = 1
"""Version of the format of states, keys and ledger. It rises if an older cache can no longer be read as it is."""


_ALWAYS = frozenset({"grid", "format_version"})
"""Fields with a default that are always in the digest: they were in it before defaults were left out."""


@dataclass(frozen=True)
class TrajectoryGrid:
    """A `Trajectory` state lies on the grid of its scheduler and N; a `Clean` state lies on none."""

    scheduler: str  # class name and config, as one digest
    steps: int


@dataclass(frozen=True)
class Space:
    """Two requests can share states only if all these fields are equal.

    A new field needs a default: the value that all earlier entries have. At its default a field is left out of the
    digest, so an upgrade keeps every cache. Adapters have no field, because none can be loaded yet; the fingerprint
    covers the weights.
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
        """Returns 64 hexadecimal digits. Nothing else about a space leaves the process."""
        values = asdict(self)
        for field in fields(self):
            if field.name not in _ALWAYS and field.default is not MISSING and values[field.name] == field.default:
                del values[field.name]
        return sha256_of_json(values)


def exact_digest(space: str, prompt: tuple[int, ...], seed: int, steps: int, scheduler: str) -> str:
    """Returns the digest that is equal for two equal requests: same space, prompt (token ids), seed, N and
    scheduler."""
    return sha256_of_json([space, prompt, seed, steps, scheduler])


def sha256_of_json(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
