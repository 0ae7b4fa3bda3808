"""The possible results of a look-up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from diffcache_core.cache.states import StateKind
from diffcache_core.generation import Result


@dataclass(frozen=True)
class Miss:
    """Start from pure noise."""

    result: Result = Result.MISS
    k: int = 0
    depth: int = 0
    parent: str = ""
    similarity: float | None = None
    granted_skip: int = 0  # percent


@dataclass(frozen=True)
class Resume:
    """Start at step `k` from another entry's state."""

    k: int
    depth: int  # depth of the new picture: one more than the parent's
    parent: str  # entry id
    similarity: float
    granted_skip: int  # percent that the levels allowed
    kind: StateKind
    own_run: bool  # the parent has the same prompt and seed
    tensors: Mapping[str, torch.Tensor]  # `latent` and the scheduler's history; on the CPU
    load_seconds: float
    result: Result = Result.APPROXIMATE


@dataclass(frozen=True)
class Exact:
    """The same request was answered before: only its final latent has to be decoded again."""

    k: int  # equals N: no step is left to run
    depth: int
    parent: str
    tensors: Mapping[str, torch.Tensor]
    load_seconds: float
    result: Result = Result.EXACT
    similarity: float | None = None
    granted_skip: int = 100


Found = Miss | Resume | Exact


@dataclass(frozen=True)
class CapturedState:
    """A state that was copied from the device and goes into the cache."""

    kind: StateKind
    k: int  # steps done; 0 for Clean
    tensors: Mapping[str, torch.Tensor]  # on the CPU
