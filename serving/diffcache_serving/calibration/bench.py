"""Runs the model for a calibration: many runs at once, with the same step code as serving."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from diffcache_core.generation import GenerationRequest
from diffcache_serving.calibration.prompts import Prompt
from diffcache_serving.calibration.settings import Settings
from diffcache_serving.engine.device_run import DeviceRun
from diffcache_serving.engine.diffusion_model import DiffusionModel
from diffcache_serving.engine.step import step
from diffcache_serving.scorer import ClipScorer
from diffcache_serving.values.text import TextEncoding

FIRST_SEED = 1000
"""Prompt i always runs with seed FIRST_SEED + i. So one run is used as a parent, as an uncached picture and in chains,
and no two prompts have the same noise."""


class Bench:
    """Runs and scores prompts. `clean` keeps the final latents, because parents are used many times."""

    def __init__(
        self,
        model: DiffusionModel,
        scorer: ClipScorer,
        prompts: Sequence[Prompt],
        settings: Settings,
        size: tuple[int, int],
        batch: int,
    ) -> None:
        """`size` is (width, height) in pixels, `batch` the number of runs in one denoiser call."""
        self.model, self.scorer, self.prompts, self.settings, self.batch = model, scorer, prompts, settings, batch
        width, height = size
        self._request = GenerationRequest("", 0, True, settings.steps, settings.guidance, width, height)
        self._clean: dict[int, torch.Tensor] = {}

    def encode(self, i: int) -> TextEncoding:
        return self.model.encode(replace(self._request, prompt=self.prompts[i].text))

    def noise(self, i: int, offset: int = 0) -> torch.Tensor:
        """Returns the noise of prompt i's own seed, (1, channels, h, w), or of another seed if `offset` is not 0."""
        return self.model.noise(replace(self._request, seed=FIRST_SEED + i + offset * len(self.prompts)))

    def from_noise(self, text: TextEncoding, noise: torch.Tensor, steps: int) -> DeviceRun:
        """Returns a run without a cache, with any number of steps."""
        schedule = self.model.schedule(steps, 0)
        return DeviceRun(self.model, text, schedule.start(noise), schedule, steps)

    def late_start(self, text: TextEncoding, noise: torch.Tensor, k: int) -> DeviceRun:
        """Returns the control without a state: a run that begins at step k from noise alone."""
        return self.resumed(text, torch.zeros_like(noise), noise, k)

    def resumed(self, text: TextEncoding, clean: torch.Tensor, noise: torch.Tensor, k: int) -> DeviceRun:
        """Returns a resume as in serving: from the parent's final latent, noised to step k with the request's own
        noise."""
        schedule = self.model.schedule(self.settings.steps, k)
        return DeviceRun(self.model, text, schedule.noised(clean, noise), schedule, self.settings.steps, k)

    def run(self, jobs: Sequence[DeviceRun]) -> list[torch.Tensor]:
        """Runs `jobs` and returns their final latents in the same order. When a run ends, the next one takes its place
        in the batch."""
        waiting, active = deque(jobs), list[DeviceRun]()
        while waiting or active:
            while waiting and len(active) < self.batch:
                active.append(waiting.popleft())
            step(self.model, active)
            active = [job for job in active if not job.is_denoised]
        return [job.x for job in jobs]

    def clean(self, indexes: Iterable[int]) -> dict[int, torch.Tensor]:
        """Returns the final latents of runs without a cache at the calibrated N, by prompt."""
        wanted = list(dict.fromkeys(indexes))
        missing = [i for i in wanted if i not in self._clean]
        jobs = [self.from_noise(self.encode(i), self.noise(i), self.settings.steps) for i in missing]
        self._clean.update(zip(missing, self.run(jobs), strict=True))
        return {i: self._clean[i] for i in wanted}

    def pictures(self, latents: Sequence[torch.Tensor]) -> torch.Tensor:
        """Returns pixels (n, 3, height, width), float32 in 0..1, rounded to 8 bits as in pictures for clients."""
        parts = []
        for at in range(0, len(latents), self.batch):
            latent = torch.cat(list(latents[at : at + self.batch]))
            pixels = self.model.decode_pixels(latent)
            parts.append(((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round() / 255)
        return torch.cat(parts)

    def score(self, latents: Sequence[torch.Tensor], prompt: Sequence[int]) -> list[float]:
        """Returns the quality of each final latent's picture. `prompt` has the index of the prompt of each latent."""
        return self.scorer.score(self.pictures(latents), [self.prompts[i].text for i in prompt], self.batch)
