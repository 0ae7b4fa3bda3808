"""CLIPScore, unscaled: the cosine of a picture's and a prompt's embedding (Hessel et al. 2021, arXiv 2104.08718)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import interpolate, normalize

from diffcache_core.documents import read_json
from diffcache_core.recently_used import RecentlyUsed
from diffcache_serving.engine.loading import fingerprint
from diffcache_serving.values.errors import ScorerError

TEXTS_KEPT = 10_000
"""Number of prompt embeddings that are kept, 2 kB each. A calibration scores some thousand prompts many times each."""


class ClipScorer:
    """Scores pictures with a CLIPModel and its tokenizer, in a folder as transformers saves them."""

    def __init__(self, folder: Path, device: torch.device, texts_kept: int = TEXTS_KEPT) -> None:
        """Raises ScorerError if `folder` holds no usable CLIPModel."""
        _check_folder(folder)
        from transformers import AutoTokenizer, CLIPModel, logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            self.clip: Any = CLIPModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # transformers raises many types for a damaged file
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ScorerError(f"scorer {folder} cannot be loaded ({first}): copy it again") from None
        self.clip.to(device).eval()
        self._device = device
        self._mean, self._std = (v.to(device) for v in _read_normalization(folder))
        self.digest = fingerprint(folder)
        self._texts: RecentlyUsed[str, torch.Tensor] = RecentlyUsed(texts_kept)

    def score(self, pictures: torch.Tensor, prompts: Sequence[str], batch: int) -> list[float]:
        """Returns the cosine of each picture with the prompt at the same position.

        Args:
            pictures: (n, 3, height, width), values in 0..1.
            prompts: n texts.
            batch: number of pictures in one call.
        """
        scores: list[float] = []
        for at in range(0, len(pictures), batch):
            image = self._embed_pictures(pictures[at : at + batch])
            text = torch.stack([self._embed_text(prompt) for prompt in prompts[at : at + batch]])
            scores += (image * text).sum(dim=1).tolist()
        return scores

    def _embed_pictures(self, pictures: torch.Tensor) -> torch.Tensor:
        side = self.clip.config.vision_config.image_size
        if pictures.shape[-2:] != (side, side):
            pictures = interpolate(pictures, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)
        pixels = (pictures.to(self._device) - self._mean) / self._std
        pooled = self.clip.vision_model(pixel_values=pixels).pooler_output
        return normalize(self.clip.visual_projection(pooled))

    def _embed_text(self, prompt: str) -> torch.Tensor:
        if (kept := self._texts.get(prompt)) is not None:
            return kept
        length = self.clip.config.text_config.max_position_embeddings
        tokens = self._tokenizer(
            [prompt], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        ).to(self._device)
        pooled = self.clip.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        return self._texts.put(prompt, normalize(self.clip.text_projection(pooled))[0])


def _check_folder(folder: Path) -> None:
    remedy = "give a folder as transformers saves a CLIPModel with its tokenizer"
    try:
        kind = read_json(folder / "config.json").get("model_type")
    except (ValueError, AttributeError):
        raise ScorerError(f"scorer {folder} holds no readable config.json: {remedy}") from None
    if kind != "clip":
        raise ScorerError(f"scorer {folder} is a {kind} model: {remedy}")


def _read_normalization(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns mean and standard deviation, (3, 1, 1) each, to normalise pixels. Without a file: for pixels in -1..1."""
    path = folder / "preprocessor_config.json"
    config = read_json(path) if path.is_file() else {}
    mean, std = config.get("image_mean", [0.5] * 3), config.get("image_std", [0.5] * 3)
    return torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
