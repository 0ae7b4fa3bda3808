"""No NaN and no infinity is resumed from, shown or kept: one in the cache would blacken every picture like it."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from diffcache_serving.values.errors import NotFinite


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether every number in `tensor` is one. Waits for the device that it lies on."""
    if tensor.is_floating_point() and tensor.itemsize == 1:  # torch cannot ask this of every 8-bit type
        tensor = tensor.float()
    return bool(torch.isfinite(tensor).all())


def check_finite(part: str, tensors: Iterable[torch.Tensor]) -> None:
    """Raises NotFinite. `part`, of metrics.NOT_FINITE_PARTS, says what the tensors are."""
    if not all(is_finite(tensor) for tensor in tensors):
        raise NotFinite(part)
