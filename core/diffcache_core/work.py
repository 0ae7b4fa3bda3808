"""Computes the work of a request, in denoising steps at the model's own size. Pure."""

from __future__ import annotations

ATTENTION = 0.3
"""Share of a step's time, at the model's own size, that grows with the square of the area (self-attention). One step of
the bundled model (64 pixels) took 203 s at 1024 pixels and takes 10 ms at its own size; this share explains it. A lower
value counts large pictures for less than they take."""

AREA_MULTIPLE = 4
"""Largest area of a picture, as a multiple of the model's own, if the manifest names none: twice its side. Beyond it
models repeat motifs. A higher value lets one request use the device for longer: at 4 a step takes as long as 8, at 16
as long as 88."""


def step_cost(pixels: int, own_pixels: int) -> float:
    """Returns the cost of one step of a picture with `pixels` pixels, in steps at the model's own size."""
    ratio = pixels / own_pixels
    return ratio * (1 - ATTENTION + ATTENTION * ratio)
