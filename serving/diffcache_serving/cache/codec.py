"""A state as bytes: safetensors, with the state's own id inside and a checksum in the ledger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from diffcache_core.cache.space import FORMAT_VERSION
from diffcache_serving.values.finite import check_finite


class DamagedState(Exception):
    """The stored bytes are not those that were written for this state: torn, swapped, or of another format."""


def encode(state_id: str, tensors: Mapping[str, torch.Tensor]) -> bytes:
    """`tensors` lie on the CPU; dtypes are kept, so a resumed run is the uninterrupted one bit for bit."""
    return save(dict(tensors), {"state": state_id, "format": str(FORMAT_VERSION)})


def checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def decode(state_id: str, data: bytes, expected: str) -> dict[str, torch.Tensor]:
    """The tensors of a state. Raises DamagedState unless `data` is exactly what was stored under `state_id`, and
    NotFinite for a state that should never have been stored: an earlier version looked at none."""
    if checksum(data) != expected:
        raise DamagedState(f"state {state_id}: the checksum of its {len(data)} bytes differs from the ledger's")
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError) as error:
        raise DamagedState(f"state {state_id}: {error}") from None
    if header.get("__metadata__", {}).get("state") != state_id:
        raise DamagedState(f"state {state_id}: the bytes are those of another state")
    check_finite("latent", tensors.values())
    return tensors
