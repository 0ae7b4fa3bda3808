"""One denoising step of several runs: the step loop, the quality comparisons and `calibrate` all take it here."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from diffcache_serving.engine.device_run import DeviceRun
from diffcache_serving.engine.diffusion_model import DiffusionModel


def predict(model: DiffusionModel, runs: Sequence[DeviceRun]) -> list[torch.Tensor]:
    """What the denoiser predicts for each run's next step, (1, channels, h, w), from one call."""
    inputs, timesteps = zip(*(run.denoiser_input() for run in runs), strict=True)
    return model.predict(inputs, timesteps, [run.text for run in runs])


def step(model: DiffusionModel, runs: Sequence[DeviceRun]) -> None:
    """Each run is one step further. Raises what the first that fails raises."""
    for run, output in zip(runs, predict(model, runs), strict=True):
        run.advance(output)
