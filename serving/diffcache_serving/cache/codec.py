"""Converts states to bytes and back: safetensors that contain the state's id. The ledger holds their checksum."""

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
    """The stored bytes are not the bytes that were written for this state: incomplete, swapped, or another format."""


def encode(state_id: str, tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Returns the bytes of a state. `tensors` are on the CPU.

    Keeps their dtypes, so that a resumed run is bit-identical to the uninterrupted run.
    """
    return save(dict(tensors), {"state": state_id, "format": str(FORMAT_VERSION)})


def checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def decode(state_id: str, data: bytes, expected: str) -> dict[str, torch.Tensor]:
    """Returns the tensors of a state. `expected` is the checksum from the ledger.

    Raises DamagedState unless `data` is exactly what was stored under `state_id`. Raises NotFinite for a state with NaN
    or infinity, which an earlier version may have stored because it did not check.
    """
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
