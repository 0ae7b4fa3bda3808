"""The optional matrix of a model folder that converts the pooled output of the text encoder to a key."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file

from diffcache_core.foreign import first_line
from diffcache_serving.engine.sources import DIFFCACHE_FOLDER
from diffcache_serving.values.errors import ModelError
from diffcache_serving.values.finite import is_finite

POOLED = "pooled"
"""The digest if there is no projection: then a key is the pooled output itself."""


def load_projection(source: str, folder: Path, width: int) -> tuple[torch.Tensor | None, str]:
    """Returns the projection, (dim, `width`) float32 on the CPU, or None if there is none; and its digest.

    Raises ModelError if the file cannot be used.
    """
    path = folder / DIFFCACHE_FOLDER / "projection.safetensors"
    if not path.is_file():
        return None, POOLED
    try:
        weight = load_file(path)["weight"].float()
    except Exception as error:  # a damaged or foreign file may raise any type
        raise ModelError(
            f"model {source}: {path} is damaged ({first_line(error)}): copy it again, or remove it to use the pooled "
            "output as key (calibrate anew)"
        ) from None
    if not is_finite(weight):
        raise ModelError(f"model {source}: {path} holds values that are not finite (NaN or infinity): copy it again")
    if weight.ndim != 2 or weight.shape[1] != width:
        raise ModelError(f"model {source}: {path} must be a (dim, {width}) matrix, is {tuple(weight.shape)}")
    if not weight.any():
        raise ModelError(f"model {source}: {path} holds zeros only, which make no key: copy it again")
    return weight, hashlib.sha256(path.read_bytes()).hexdigest()
