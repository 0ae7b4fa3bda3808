"""The operations of a Stable Diffusion 1.x or 2.x pipeline for the step loop: encode, predict, decode.

Each method does the same as `StableDiffusionPipeline.__call__` at that point, so that a run alone in the loop gives a
picture that is bit-identical to the stock pipeline's. Device thread only.
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
from diffcache_serving.engine.schedulers.schedule import Schedule
from diffcache_serving.engine.schedulers.step_counts import StepCounts
from diffcache_serving.values.finite import check_finite
from diffcache_serving.values.text import TextEncoding

NEGATIVE_PROMPTS_KEPT = 64
"""Number of encoded negative prompts that are kept on the device. The requests of a tenant share a few, and each costs
a call of the text encoder."""


@dataclass(frozen=True)
class _Encoded:
    """One encoded text."""

    ids: tuple[int, ...]
    embedding: torch.Tensor  # (1, tokens, width)
    pooled: torch.Tensor  # (1, width)
    dropped: int  # tokens that do not fit into the tokenizer


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
        self.projection = projection  # (dim, width) float32 on the CPU; None if a key is the pooled output itself
        self.scheduler = scheduler
        self.device: torch.device = pipe.device
        self.dtype: torch.dtype = pipe.unet.dtype
        self.step_counts = StepCounts(scheduler, pipe.scheduler.config)
        self._negatives: RecentlyUsed[tuple[str, str], _Encoded] = RecentlyUsed(NEGATIVE_PROMPTS_KEPT)

    @property
    def size_multiple(self) -> int:
        """Returns the least common multiple of a latent cell's side in pixels and 8, which diffusers requires."""
        return math.lcm(8, int(self.pipe.vae_scale_factor))

    @property
    def key_dim(self) -> int:
        return int(self.pipe.text_encoder.config.hidden_size if self.projection is None else self.projection.shape[0])

    def encode(self, request: GenerationRequest) -> TextEncoding:
        """Returns conditioning and key of a request, from one pass of the pipeline's own text encoder.

        Raises NotFinite. Raises InvalidRequest if the model does not support the number of steps or a word.
        """
        self.step_counts.check(request.steps)
        prompt = self._encode(request.prompt)
        key = self._key(prompt.pooled)
        if request.guidance <= 1:  # the pipeline then uses no classifier-free guidance
            return TextEncoding(key, prompt.ids, (), prompt.embedding, request.guidance, prompt.dropped)
        negative = self._negative(request.tenant, request.negative_prompt)
        rows = torch.cat([negative.embedding, prompt.embedding])
        return TextEncoding(key, prompt.ids, negative.ids, rows, request.guidance, prompt.dropped, negative.dropped)

    def schedule(self, steps: int, begin: int) -> Schedule:
        return Schedule(self.scheduler, self.pipe.scheduler.config, steps, begin, str(self.device))

    def pixels(self, shape: tuple[int, ...]) -> int:
        """Returns the number of pixels of a picture whose latent has this shape."""
        return int(shape[-2] * shape[-1] * self.pipe.vae_scale_factor**2)

    def noise(self, request: GenerationRequest) -> torch.Tensor:
        """Returns standard normal noise, (1, channels, h, w).

        It comes from a CPU generator, so that a seed gives the same noise on every device. The generator of torch uses
        only the lower 32 bits of a seed, so larger seeds use a generator that takes all bits.
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
        """Returns the denoiser's output for several runs from one call, guidance applied: (1, channels, h, w) each.

        Args:
            inputs: the scaled latents of the runs, all of the same shape.
            timesteps: one scalar for each run; they may differ.
            texts: the conditioning of the runs; rows and guidance may differ.
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
        """Returns pixels (n, 3, height, width) from -1 to 1 for final latents (n, channels, h, w). Raises NotFinite."""
        vae = self.pipe.vae
        pixels: torch.Tensor = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        check_finite("picture", [pixels])
        return pixels

    def decode(self, latent: torch.Tensor) -> tuple[Image.Image, bool]:
        """Returns the picture of a final latent (1, channels, h, w), and whether the safety checker flagged it.

        Raises NotFinite.
        """
        pixels = self.decode_pixels(latent)
        pixels, flagged = self.pipe.run_safety_checker(pixels, self.device, self.dtype)
        is_flagged = bool(flagged and flagged[0])
        return self.pipe.image_processor.postprocess(pixels, output_type="pil", do_denormalize=[not is_flagged])[
            0
        ], is_flagged

    def synchronize(self) -> None:
        """Waits for the device. So the measured time of a step is correct, and a cancelled run really has stopped."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _encode(self, text: str) -> _Encoded:
        tokenizer, encoder = self.pipe.tokenizer, self.pipe.text_encoder
        text = self.pipe.maybe_convert_prompt(text, tokenizer)  # for textual inversions with several vectors
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
        # We do not use the encoder's own pooled output. With `eos_token_id: 2`, which most models have, it is taken at
        # the largest token id, and the id of an added token is larger than that of the end token.
        end = (tokens.input_ids[0] == tokenizer.eos_token_id).int().argmax()
        check_finite("encoding", [output[0]])
        dropped = max(0, len(whole) - tokenizer.model_max_length)
        return _Encoded(ids, output[0].to(dtype=encoder.dtype), output[0][:, end], dropped)

    def _negative(self, tenant: str, text: str) -> _Encoded:
        """Returns an encoded negative prompt, kept per tenant.

        If tenants shared it, the time of a request would reveal the negative prompts of others. Only the empty text is
        shared.
        """
        key = (tenant if text else "", text)
        if (kept := self._negatives.get(key)) is not None:
            return kept
        return self._negatives.put(key, self._encode(text))

    def _key(self, pooled: torch.Tensor) -> np.ndarray:
        vector = pooled[0].float().cpu()
        if self.projection is not None:
            vector = self.projection @ vector
        return (vector / vector.norm()).numpy()
