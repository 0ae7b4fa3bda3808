"""A prompt, encoded for the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class TextEncoding:
    """A prompt and its negative prompt, encoded.

    `conditioning` has shape (rows, tokens, width). Its rows are [negative, prompt] with classifier-free guidance, else
    [prompt].
    """

    key: np.ndarray  # (dim,) float32, L2-normalised: the index searches by it
    prompt_ids: tuple[int, ...]
    negative_ids: tuple[int, ...]
    conditioning: torch.Tensor
    guidance: float
    dropped: int = 0  # tokens of the prompt that do not fit into the tokenizer
    negative_dropped: int = 0

    @property
    def has_key(self) -> bool:
        """Returns False for a zero or NaN embedding, because it would be equally near to every other key."""
        return bool(np.isfinite(self.key).all())
