"""The interface of a model to the engine. It is the same for all families of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from PIL import Image

from diffcache_core.generation import GenerationRequest
from diffcache_serving.engine.schedulers.schedule import Schedule
from diffcache_serving.engine.schedulers.step_counts import StepCounts
from diffcache_serving.values.text import TextEncoding


class DiffusionModel(Protocol):
    """The device side of one loaded pipeline. Methods are called on the device thread only."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def step_counts(self) -> StepCounts:
        """Returns the numbers of steps that the model supports. May be called from any thread."""

    @property
    def size_multiple(self) -> int:
        """Width and height of a picture must be multiples of this number of pixels."""

    @property
    def own_size(self) -> tuple[int, int]:
        """Returns (width, height) in pixels for which the model was made."""

    @property
    def key_dim(self) -> int:
        """Returns the length of a key."""

    @property
    def embedder(self) -> str:
        """Returns a digest of the projection that makes keys from pooled outputs; "pooled" if there is none."""

    def pixels(self, shape: tuple[int, ...]) -> int:
        """Returns the number of pixels of a picture whose latent has this shape."""

    def encode(self, request: GenerationRequest) -> TextEncoding:
        """Returns conditioning and key of a request.

        Raises NotFinite. Raises InvalidRequest if the model does not support the number of steps or a word.
        """

    def schedule(self, steps: int, begin: int) -> Schedule:
        """Returns a new schedule for one run of N `steps` that begins at step `begin`."""

    def noise(self, request: GenerationRequest) -> torch.Tensor:
        """Returns standard normal noise in the shape of the request's latent, (1, channels, h, w). The same seed gives
        the same noise on every device."""

    def predict(
        self, inputs: Sequence[torch.Tensor], timesteps: Sequence[torch.Tensor], texts: Sequence[TextEncoding]
    ) -> list[torch.Tensor]:
        """Returns the denoiser's output for several runs from one call, guidance applied: (1, channels, h, w) each.

        Args:
            inputs: the scaled latents of the runs, all of the same shape.
            timesteps: one scalar for each run; they may differ.
            texts: the conditioning of the runs; rows and guidance may differ.
        """

    def decode_pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """Returns pixels (n, 3, height, width) from -1 to 1 for final latents (n, channels, h, w). Raises NotFinite."""

    def decode(self, latent: torch.Tensor) -> tuple[Image.Image, bool]:
        """Returns the picture of a final latent (1, channels, h, w), and whether a safety checker flagged it.

        Raises NotFinite.
        """

    def synchronize(self) -> None:
        """Waits for the device. So the measured time of a step is correct, and a cancelled run really has stopped."""
