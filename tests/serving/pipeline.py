"""The pipeline of diffusers inside a loaded model: what tests compare with, and what they break."""

from __future__ import annotations

from typing import Any

from diffcache_serving.engine.families.stable_diffusion.model import StableDiffusion
from diffcache_serving.engine.loading import LoadedModel


def diffusion_of(model: LoadedModel) -> StableDiffusion:
    assert isinstance(model.diffusion, StableDiffusion)
    return model.diffusion


def pipe_of(model: LoadedModel) -> Any:
    return diffusion_of(model).pipe
