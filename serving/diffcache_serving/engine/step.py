"""One denoising step of several runs. The step loop, the quality comparisons and `calibrate` all use it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from diffcache_serving.engine.device_run import DeviceRun
from diffcache_serving.engine.diffusion_model import DiffusionModel


def predict(model: DiffusionModel, runs: Sequence[DeviceRun]) -> list[torch.Tensor]:
    """Returns the denoiser's prediction for the next step of each run, (1, channels, h, w) each, from one call."""
    inputs, timesteps = zip(*(run.denoiser_input() for run in runs), strict=True)
    return model.predict(inputs, timesteps, [run.text for run in runs])


def step(model: DiffusionModel, runs: Sequence[DeviceRun]) -> None:
    """Moves each run one step further. Raises the error of the first run that fails."""
    for run, output in zip(runs, predict(model, runs), strict=True):
        run.advance(output)
