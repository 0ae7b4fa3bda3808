"""The model at work for a calibration: many runs at once, through the very adapter that serves."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from diffcache_core.generation import GenerationRequest
from diffcache_serving.calibration.prompts import Prompt
from diffcache_serving.calibration.settings import Settings
from diffcache_serving.engine.adapter import StableDiffusion
from diffcache_serving.engine.schedulers import Schedule
from diffcache_serving.scorer import ClipScorer
from diffcache_serving.values.finite import check_finite
from diffcache_serving.values.text import TextEncoding

FIRST_SEED = 1000
"""Prompt i runs with seed FIRST_SEED + i everywhere: one run serves as a parent, as an uncached picture and in chains,
and no two prompts share their noise."""


@dataclass
class Job:
    """One run to do: the latent `x` (1, channels, h, w) before step `i` of its schedule."""

    text: TextEncoding
    schedule: Schedule
    x: torch.Tensor
    i: int


class Bench:
    """Runs and scores prompts. `clean` keeps the final latents: parents are used again and again."""

    def __init__(
        self,
        model: StableDiffusion,
        scorer: ClipScorer,
        prompts: Sequence[Prompt],
        settings: Settings,
        size: tuple[int, int],
        batch: int,
    ) -> None:
        """`size` is width and height in pixels, `batch` the runs in one denoiser call."""
        self.model, self.scorer, self.prompts, self.settings, self.batch = model, scorer, prompts, settings, batch
        width, height = size
        self._request = GenerationRequest("", 0, True, settings.steps, settings.guidance, width, height)
        self._clean: dict[int, torch.Tensor] = {}

    def encode(self, i: int) -> TextEncoding:
        return self.model.encode(replace(self._request, prompt=self.prompts[i].text))

    def noise(self, i: int, offset: int = 0) -> torch.Tensor:
        """(1, channels, h, w): of prompt i's own seed, or of another one when `offset` is not 0."""
        return self.model.noise(replace(self._request, seed=FIRST_SEED + i + offset * len(self.prompts)))

    def from_noise(self, text: TextEncoding, noise: torch.Tensor, steps: int) -> Job:
        """A run without a cache, of any number of steps."""
        schedule = self.model.schedule(steps, 0)
        return Job(text, schedule, schedule.start(noise), 0)

    def late_start(self, text: TextEncoding, noise: torch.Tensor, k: int) -> Job:
        """The control without a state: at k, where a parent's latent would be, there is nothing but noise."""
        return self.resumed(text, torch.zeros_like(noise), noise, k)

    def resumed(self, text: TextEncoding, clean: torch.Tensor, noise: torch.Tensor, k: int) -> Job:
        """A resume as it is served: the parent's final latent, noised to k with the request's own noise."""
        schedule = self.model.schedule(self.settings.steps, k)
        return Job(text, schedule, schedule.noised(clean, noise), k)

    def run(self, jobs: Sequence[Job]) -> list[torch.Tensor]:
        """The final latents, in the order of `jobs`. Runs that end make room for the next ones."""
        waiting, active = deque(jobs), list[Job]()
        while waiting or active:
            while waiting and len(active) < self.batch:
                active.append(waiting.popleft())
            inputs = [job.schedule.model_input(job.i, job.x) for job in active]
            timesteps = [job.schedule.timesteps[job.i] for job in active]
            outputs = self.model.predict(inputs, timesteps, [job.text for job in active])
            for job, output in zip(active, outputs, strict=True):
                job.x = job.schedule.step(job.i, output, job.x)
                job.i += 1
            active = [job for job in active if job.i < job.schedule.steps]
        return [job.x for job in jobs]

    def clean(self, indexes: Iterable[int]) -> dict[int, torch.Tensor]:
        """The final latents of these prompts' runs without a cache, at the calibrated N."""
        wanted = list(dict.fromkeys(indexes))
        missing = [i for i in wanted if i not in self._clean]
        jobs = [self.from_noise(self.encode(i), self.noise(i), self.settings.steps) for i in missing]
        self._clean.update(zip(missing, self.run(jobs), strict=True))
        return {i: self._clean[i] for i in wanted}

    def pictures(self, latents: Sequence[torch.Tensor]) -> torch.Tensor:
        """(n, 3, height, width) float32 in 0..1, rounded to 8 bits as a caller gets them."""
        vae, parts = self.model.pipe.vae, []
        for at in range(0, len(latents), self.batch):
            latent = torch.cat(list(latents[at : at + self.batch]))
            pixels = vae.decode(latent / vae.config.scaling_factor, return_dict=False)[0]
            check_finite("picture", [pixels])
            parts.append(((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round() / 255)
        return torch.cat(parts)

    def score(self, latents: Sequence[torch.Tensor], prompt: Sequence[int]) -> list[float]:
        """The quality of each final latent's picture for its prompt (the prompt's index in `prompt`)."""
        return self.scorer.score(self.pictures(latents), [self.prompts[i].text for i in prompt], self.batch)
