"""The defaults for fields that a request does not set. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from diffcache_core.generation import MAX_SIDE
from diffcache_core.serving_config import ModelConfig
from diffcache_core.work import AREA_MULTIPLE
from diffcache_serving.values.errors import ModelError

DEFAULT_STEPS, DEFAULT_GUIDANCE = 50, 7.5  # the defaults of diffusers for Stable Diffusion


@dataclass(frozen=True)
class ModelDefaults:
    steps: int
    guidance: float
    width: int  # pixels
    height: int
    size_multiple: int  # pixels
    max_pixels: int  # maximum of width times height of any request


def choose_defaults(config: ModelConfig, own_size: tuple[int, int], size_multiple: int) -> ModelDefaults:
    """Returns the values of the config, or those of the model where the config has none.

    `own_size` is (width, height) in pixels, `size_multiple` is in pixels. Raises ModelError if the model cannot make
    the size.
    """
    own_width, own_height = own_size
    width, height = config.width or own_width, config.height or own_height
    most = config.max_pixels or max(AREA_MULTIPLE * own_width * own_height, width * height)
    defaults = ModelDefaults(
        steps=config.steps or DEFAULT_STEPS,
        guidance=DEFAULT_GUIDANCE if config.guidance is None else config.guidance,
        width=width,
        height=height,
        size_multiple=size_multiple,
        max_pixels=most,
    )
    if width * height > most:
        raise ModelError(
            f"spec.model.maxPixels: must be at least {width * height}, the {width} x {height} pixels of a request that "
            f"names no size, is {most}"
        )
    for field, pixels in (("width", defaults.width), ("height", defaults.height)):
        if pixels > MAX_SIDE:
            raise ModelError(
                f"spec.model.{field}: must be at most {MAX_SIDE}, is {pixels}: the model says that it was made for "
                f"{own_width} x {own_height} pixels; set spec.model.width and height, or correct sample_size in the "
                "config.json of its denoiser"
            )
        if pixels % size_multiple:
            raise ModelError(f"spec.model.{field}: must be a multiple of {size_multiple} for this model, is {pixels}")
    return defaults
