"""Entries of the cache, and the states from which a new run can resume."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

BLOCK_BYTES = 4096
"""Block size of file systems. They allocate whole blocks, so the sum of file lengths would be less than the space
used."""


class StateKind(StrEnum):
    CLEAN = "Clean"  # the final latent x_0, noised to any k with the request's own noise
    TRAJECTORY = "Trajectory"  # the latent x_k after k of N steps, with the scheduler's history


@dataclass(frozen=True)
class StateRecord:
    """The ledger's row of one state."""

    id: str
    entry_id: str
    kind: StateKind
    k: int  # steps done; 0 for Clean, which fits every k
    bytes: int  # allocated, a multiple of BLOCK_BYTES
    checksum: str  # sha256 of the stored bytes
    uses: int = 0
    score: float = 0.0


@dataclass(frozen=True)
class Entry:
    """One cached generation."""

    id: str
    space: str
    exact: str  # digest of the whole request, see space.exact_digest
    prompt_digest: str  # sha256 of the prompt's token ids: shows that two prompts are the same, without the text
    prompt: str
    tenant: str
    model: str
    seed: int
    steps: int  # N
    skipped: int  # the k at which it resumed itself; 0: from pure noise
    similarity: float  # to its parent; 1.0 if it ran from pure noise
    depth: int  # number of resumes between it and a run from pure noise
    parent: str  # entry id; empty if it ran from pure noise
    created: float  # seconds since the epoch
    states: tuple[StateRecord, ...] = ()

    @property
    def uses(self) -> int:
        return sum(state.uses for state in self.states)


def allocated_bytes(length: int) -> int:
    """Returns the bytes that a file of `length` bytes takes on disk."""
    return -(-length // BLOCK_BYTES) * BLOCK_BYTES
