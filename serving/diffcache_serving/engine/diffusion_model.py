"""What the engine needs of a model, whatever its family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from PIL import Image

from diffcache_core.generation import GenerationRequest
from diffcache_serving.engine.schedulers import Schedule
from diffcache_serving.engine.step_counts import StepCounts
from diffcache_serving.values.text import TextEncoding


class DiffusionModel(Protocol):
    """The device side of one loaded pipeline. Methods are called on the device thread only."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def step_counts(self) -> StepCounts:
        """Which numbers of steps can be had. From any thread."""

    @property
    def size_multiple(self) -> int:
        """Pixels that width and height of a picture are multiples of."""

    @property
    def own_size(self) -> tuple[int, int]:
        """Width and height in pixels that the model was made for."""

    @property
    def key_dim(self) -> int:
        """Length of a key."""

    @property
    def embedder(self) -> str:
        """Digest of what makes keys of an encoded prompt, beside the weights; "pooled" where there is nothing more."""

    def pixels(self, shape: tuple[int, ...]) -> int:
        """Of the picture of a latent of this shape."""

    def encode(self, request: GenerationRequest) -> TextEncoding:
        """Conditioning and key of a request.

        Raises NotFinite, or InvalidRequest for a number of steps or a word that the model does not have.
        """

    def schedule(self, steps: int, begin: int) -> Schedule:
        """A run's own schedule of N `steps`, entered at step `begin`."""

    def noise(self, request: GenerationRequest) -> torch.Tensor:
        """Standard normal noise in the shape of the request's latent, (1, channels, h, w). The same seed gives the same
        noise on every device."""

    def predict(
        self, inputs: Sequence[torch.Tensor], timesteps: Sequence[torch.Tensor], texts: Sequence[TextEncoding]
    ) -> list[torch.Tensor]:
        """The denoiser's output for several runs in one call, guidance applied; each (1, channels, h, w).

        Args:
            inputs: the runs' scaled latents, all of one shape.
            timesteps: scalars, one a run; they may differ.
            texts: the runs' conditioning; rows and guidance may differ.
        """

    def decode_pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """(n, 3, height, width) from -1 to 1, of final latents (n, channels, h, w). Raises NotFinite."""

    def decode(self, latent: torch.Tensor) -> tuple[Image.Image, bool]:
        """The picture of a final latent, and whether a safety checker flagged it. Raises NotFinite."""

    def synchronize(self) -> None:
        """Waits for the device, so that a step's seconds are a step's and a cancellation means what it says."""
