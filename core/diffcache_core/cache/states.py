"""What the cache keeps: entries, and the states that a new run can resume from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

BLOCK_BYTES = 4096
"""File systems allocate whole blocks: a budget counted in file lengths overruns the volume."""


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
    prompt_digest: str  # sha256 of the prompt's token ids: says "the same prompt" without the text
    prompt: str
    tenant: str
    model: str
    seed: int
    steps: int  # N
    skipped: int  # k it resumed at itself; 0 = from pure noise
    similarity: float  # to its parent; 1.0 when it ran from pure noise
    depth: int  # resumes between it and a run from pure noise
    parent: str  # entry id; empty when it ran from pure noise
    created: float  # seconds since the epoch
    states: tuple[StateRecord, ...] = ()

    @property
    def uses(self) -> int:
        return sum(state.uses for state in self.states)


def allocated_bytes(length: int) -> int:
    """What a file of `length` bytes takes on disk."""
    return -(-length // BLOCK_BYTES) * BLOCK_BYTES
