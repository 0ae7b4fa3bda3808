"""Loads a model folder of Stable Diffusion onto a device."""

from __future__ import annotations

from pathlib import Path

import torch

from diffcache_serving.engine.families.stable_diffusion.fit import check_fit, own_size
from diffcache_serving.engine.families.stable_diffusion.model import StableDiffusion
from diffcache_serving.engine.families.stable_diffusion.parts import load_pipeline
from diffcache_serving.engine.projection import load_projection
from diffcache_serving.values.errors import DeviceOutOfMemory, ModelError


def load(source: str, folder: Path, device: torch.device, dtype: torch.dtype, scheduler: str) -> StableDiffusion:
    """Loads the model. Raises ModelError, or DeviceOutOfMemory if the model does not fit onto the device."""
    try:
        pipe = load_pipeline(source, folder, dtype, scheduler)
    except OSError as error:
        raise ModelError(f"model {source}: {error.filename}: {error.strerror}: make it readable") from None
    check_fit(source, folder, pipe)
    size = own_size(source, folder, pipe)
    try:
        pipe.to(device)
    except torch.OutOfMemoryError:
        raise DeviceOutOfMemory(f"model {source} does not fit into the memory of {device}: free some") from None
    projection, digest = load_projection(source, folder, pipe.text_encoder.config.hidden_size)
    return StableDiffusion(pipe, projection, scheduler, size, digest)
