"""The rows of the tables by name, and one picture of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diffcache_core.generation import Result

if TYPE_CHECKING:  # who only wants the names need not wait for torch
    import torch

STOCK, BYPASS, OURS, EXACT = "stock", "ours, BYPASS", "ours", "exact-match"
TIGHT, LRU_TIGHT = "ours, tight", "LRU, tight"
FEWER, FEWER_EXACT = "fewer steps", "fewer steps, exact"
LATE, RANDOM, UNIFORM = "late start", "random parent", "N - k steps"
TIMED = (STOCK, BYPASS, OURS, EXACT, TIGHT, LRU_TIGHT)
CONTROLS = (FEWER, FEWER_EXACT, LATE, RANDOM, UNIFORM)
ROWS = TIMED + CONTROLS
PASSES = ("first-seen", "replay")


@dataclass(frozen=True)
class Drawn:
    """One picture of one system."""

    picture: np.ndarray  # (height, width, 3) uint8
    steps_run: int
    result: Result
    k: int = 0
    similarity: float | None = None
    seconds: float | None = None  # None: drawn in a batch
    fetch_seconds: float | None = None  # look-up and load; None: made none
    latent: torch.Tensor | None = None  # the final one, of ours
