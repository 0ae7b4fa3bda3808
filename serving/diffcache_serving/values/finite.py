"""Checks tensors for NaN and infinity. Such tensors are never resumed from, shown or kept: one in the cache would turn
every picture that resumes from it black."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from diffcache_serving.values.errors import NotFinite


def is_finite(tensor: torch.Tensor) -> bool:
    """Returns whether every value in `tensor` is finite. Waits for the device that holds the tensor."""
    if tensor.is_floating_point() and tensor.itemsize == 1:  # torch cannot check every 8-bit type
        tensor = tensor.float()
    return bool(torch.isfinite(tensor).all())


def check_finite(part: str, tensors: Iterable[torch.Tensor]) -> None:
    """Raises NotFinite if a value is not finite. `part`, one of metrics.NOT_FINITE_PARTS, says what the tensors are."""
    if not all(is_finite(tensor) for tensor in tensors):
        raise NotFinite(part)
