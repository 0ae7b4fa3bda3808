"""How much a request asks of the device, in denoising steps at the model's own size. Pure."""

from __future__ import annotations

ATTENTION = 0.3
"""Share of a step at the model's own size that grows with the square of the area: self-attention. A single step of the
bundled model (64 pixels) at 1024 pixels took 203 s where one of its own takes 10 ms, which this share explains; a lower
one lets large pictures in for less than they take."""

AREA_MULTIPLE = 4
"""Largest area of a picture, as a multiple of the model's own, where the manifest names none: twice its side. Models
repeat themselves beyond that. A higher one lets one request hold the device for longer: at 4 a step takes as long as 8,
at 16 as long as 88."""


def step_cost(pixels: int, own_pixels: int) -> float:
    """One step of a picture of so many pixels, in steps at the model's own size."""
    ratio = pixels / own_pixels
    return ratio * (1 - ATTENTION + ATTENTION * ratio)
