"""What the step loop needs of a Stable Diffusion 1.x or 2.x pipeline: encode, predict, decode.

Each method repeats what `StableDiffusionPipeline.__call__` does at that point, so that a run alone in the loop gives
the stock pipeline's picture bit for bit. Device thread only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from diffcache_core.generation import GenerationRequest, InvalidRequest, Violation
from diffcache_core.recently_used import RecentlyUsed
from diffcache_serving.engine.projection import POOLED
from diffcache_serving.engine.schedulers import Schedule
from diffcache_serving.engine.step_counts import StepCounts
from diffcache_serving.values.finite import check_finite
from diffcache_serving.values.text import TextEncoding

NEGATIVE_PROMPTS_KEPT = 64
"""Encoded negative prompts kept on the device: a tenant's requests share a few, and each costs a text encoder call."""


@dataclass(frozen=True)
class _Encoded:
    """One text. `embedding` is (1, tokens, width), `pooled` (1, width)."""

    ids: tuple[int, ...]
    embedding: torch.Tensor
    pooled: torch.Tensor
    dropped: int


class StableDiffusion:
    """The device side of one loaded pipeline."""

    def __init__(
        self,
        pipe: Any,
        projection: torch.Tensor | None,
        scheduler: str,
        own_size: tuple[int, int] = (512, 512),
        embedder: str = POOLED,
    ) -> None:
        self.pipe, self.own_size, self.embedder = pipe, own_size, embedder
        self.projection = projection  # (dim, width) float32 on the CPU; None: keys are the pooled output itself
        self.scheduler = scheduler
        self.device: torch.device = pipe.device
        self.dtype: torch.dtype = pipe.unet.dtype
        self.step_counts = StepCounts(scheduler, pipe.scheduler.config)
        self._negatives: RecentlyUsed[tuple[str, str], _Encoded] = RecentlyUsed(NEGATIVE_PROMPTS_KEPT)

    @property
    def size_multiple(self) -> int:
        """Pixels: a whole latent cell, and a multiple of 8 as diffusers demands."""
        return math.lcm(8, int(self.pipe.vae_scale_factor))

    @property
    def key_dim(self) -> int:
        return int(self.pipe.text_encoder.config.hidden_size if self.projection is None else self.projection.shape[0])

    def encode(self, request: GenerationRequest) -> TextEncoding:
        """Conditioning and key of a request, from one pass of the pipeline's own text encoder.

        Raises NotFinite, or InvalidRequest for a number of steps or a word that the model does not have.
        """
        self.step_counts.check(request.steps)
        prompt = self._encode(request.prompt)
        key = self._key(prompt.pooled)
        if request.guidance <= 1:  # what the pipeline calls no classifier-free guidance
            return TextEncoding(key, prompt.ids, (), prompt.embedding, request.guidance, prompt.dropped)
        negative = self._negative(request.tenant, request.negative_prompt)
        rows = torch.cat([negative.embedding, prompt.embedding])
        return TextEncoding(key, prompt.ids, negative.ids, rows, request.guidance, prompt.dropped, negative.dropped)

    def schedule(self, steps: int, begin: int) -> Schedule:
        return Schedule(self.scheduler, self.pipe.scheduler.config, steps, begin, str(self.device))

    def pixels(self, shape: tuple[int, ...]) -> int:
        """Of the picture of a latent of this shape."""
        return int(shape[-2] * shape[-1] * self.pipe.vae_scale_factor**2)

    def noise(self, request: GenerationRequest) -> torch.Tensor:
        """(1, channels, h, w) standard normal. From a CPU generator, so a seed means the same on every device.

        Torch's takes the lower 32 bits of a seed and drops the rest, so what has more comes from one that takes all.
        """
        scale = self.pipe.vae_scale_factor
        shape = (1, self.pipe.unet.config.in_channels, request.height // scale, request.width // scale)
        if request.seed >= 2**32:
            drawn = np.random.Generator(np.random.Philox(request.seed)).standard_normal(shape, dtype=np.float32)
            return torch.from_numpy(drawn).to(device=self.device, dtype=self.dtype)
        generator = torch.Generator("cpu").manual_seed(request.seed)
        return randn_tensor(shape, generator=generator, device=self.device, dtype=self.dtype)

    def predict(
        self, inputs: Sequence[torch.Tensor], timesteps: Sequence[torch.Tensor], texts: Sequence[TextEncoding]
    ) -> list[torch.Tensor]:
        """The denoiser's output for several runs in one call, guidance applied; each (1, channels, h, w).

        Args:
            inputs: the runs' scaled latents, all of one shape.
            timesteps: scalars, one a run; they may differ.
            texts: the runs' conditioning; rows and guidance may differ.
        """
        rows = [text.conditioning.shape[0] for text in texts]
        sample = torch.cat([x for x, n in zip(inputs, rows, strict=True) for _ in range(n)])
        timestep = (
            timesteps[0]
            if len(inputs) == 1
            else torch.stack([t for t, n in zip(timesteps, rows, strict=True) for _ in range(n)])
        )
        conditioning = torch.cat([text.conditioning for text in texts])
        output = self.pipe.unet(sample, timestep, encoder_hidden_states=conditioning, return_dict=False)[0]
        guided = []
        for text, part in zip(texts, output.split(rows), strict=True):
            if len(part) == 2:
                negative, positive = part.chunk(2)
                part = negative + text.guidance * (positive - negative)
            guided.append(part)
        return guided

    def decode_pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """(n, 3, height, width) from -1 to 1, of final latents (n, channels, h, w). Raises NotFinite."""
        vae = self.pipe.vae
        pixels: torch.Tensor = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        check_finite("picture", [pixels])
        return pixels

    def decode(self, latent: torch.Tensor) -> tuple[Image.Image, bool]:
        """The picture of a final latent, and whether the pipeline's safety checker flagged it. Raises NotFinite."""
        pixels = self.decode_pixels(latent)
        pixels, flagged = self.pipe.run_safety_checker(pixels, self.device, self.dtype)
        is_flagged = bool(flagged and flagged[0])
        return self.pipe.image_processor.postprocess(pixels, output_type="pil", do_denormalize=[not is_flagged])[
            0
        ], is_flagged

    def synchronize(self) -> None:
        """Waits for the device, so that a step's seconds are a step's and a cancellation means what it says."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _encode(self, text: str) -> _Encoded:
        tokenizer, encoder = self.pipe.tokenizer, self.pipe.text_encoder
        text = self.pipe.maybe_convert_prompt(text, tokenizer)  # a textual inversion of several vectors
        whole = tokenizer(text, truncation=False, verbose=False).input_ids
        tokens = tokenizer(
            text,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        if (
            int(tokens.input_ids.max()) >= encoder.get_input_embeddings().num_embeddings
        ):  # on CUDA it would end the process
            problem = "has a word that the tokenizer knows and the text encoder does not: leave it out"
            raise InvalidRequest([Violation("prompt", problem)])
        use_mask = getattr(encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(self.device) if use_mask else None
        output = encoder(tokens.input_ids.to(self.device), attention_mask=mask)
        ids = tuple(tokens.input_ids[0, : int(tokens.attention_mask.sum())].tolist())
        # Not what the encoder pools: with `eos_token_id: 2`, which most models say, that is the largest token, and an
        # added token is larger than the end.
        end = (tokens.input_ids[0] == tokenizer.eos_token_id).int().argmax()
        check_finite("encoding", [output[0]])
        dropped = max(0, len(whole) - tokenizer.model_max_length)
        return _Encoded(ids, output[0].to(dtype=encoder.dtype), output[0][:, end], dropped)

    def _negative(self, tenant: str, text: str) -> _Encoded:
        """By tenant, or the time of a request would tell what others exclude; only the empty text is nobody's."""
        key = (tenant if text else "", text)
        if (kept := self._negatives.get(key)) is not None:
            return kept
        return self._negatives.put(key, self._encode(text))

    def _key(self, pooled: torch.Tensor) -> np.ndarray:
        vector = pooled[0].float().cpu()
        if self.projection is not None:
            vector = self.projection @ vector
        return (vector / vector.norm()).numpy()
