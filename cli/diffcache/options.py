"""The keyword arguments of `generate` and `stream`, for type checkers and editors."""

from __future__ import annotations

from typing import TypedDict

from diffcache_core.generation import CacheMode, ImageFormat


class GenerateOptions(TypedDict, total=False):
    """What a request may say beside its prompt; what is absent is left to the server."""

    negative_prompt: str
    seed: int | None  # the same seed, prompt and parameters again: the same picture, EXACT
    steps: int | None
    guidance: float | None
    width: int | None  # pixels
    height: int | None
    format: ImageFormat
    cache_mode: CacheMode
    min_similarity: float | None  # tightens the server's levels
    max_skip_percent: int | None
    request_id: str
