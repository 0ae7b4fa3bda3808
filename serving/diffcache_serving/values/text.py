"""A prompt as the model sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class TextEncoding:
    """A prompt, and what it is steered away from.

    `conditioning` is (rows, tokens, width): [negative, prompt] with classifier-free guidance, else [prompt].
    """

    key: np.ndarray  # (dim,) float32, L2-normalised: what the index searches
    prompt_ids: tuple[int, ...]
    negative_ids: tuple[int, ...]
    conditioning: torch.Tensor
    guidance: float
    dropped: int = 0  # tokens of the prompt beyond what the tokenizer holds
    negative_dropped: int = 0

    @property
    def has_key(self) -> bool:
        """False for a zero or NaN embedding, which would be equally near to everything."""
        return bool(np.isfinite(self.key).all())
