"""Compresses pictures to bytes."""

from __future__ import annotations

import io

from PIL import Image

from diffcache_core.generation import ImageFormat

_OPTIONS: dict[ImageFormat, dict[str, object]] = {
    ImageFormat.PNG: {"compress_level": 6},
    ImageFormat.WEBP: {"lossless": True, "quality": 50},  # here quality is the effort: higher is slower and smaller
    ImageFormat.JPEG: {"quality": 95, "subsampling": 0},
}


def compress(image: Image.Image, fmt: ImageFormat) -> bytes:
    """Returns an RGB picture as PNG, lossless WebP or JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, fmt.value, **_OPTIONS[fmt])
    return buffer.getvalue()
