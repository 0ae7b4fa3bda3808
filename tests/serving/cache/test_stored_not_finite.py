"""States, rows and keys that hold NaN or infinity and are stored already: none of them is served."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import numpy as np
import pytest
import torch

from diffcache_core.generation import GenerationRequest
from diffcache_serving.cache import codec
from diffcache_serving.cache.index import IndexRow
from diffcache_serving.cache.ledger import Target
from diffcache_serving.values.finite import is_finite
from diffcache_serving.values.found import Miss
from tests.serving.cache.box import CLEAN, TRAJECTORY, Box, seeded, text

BAD = [float("nan"), float("inf"), float("-inf")]


def spoil_stored(box: Box, state_id: str, dtype: torch.dtype) -> None:
    """As an earlier version could have written it: whole, with its checksum."""
    bad = torch.zeros(1, 4, 16, 16).to(dtype)
    bad[0, 0, 0, 0] = float("nan")
    data = codec.encode(state_id, {"latent": bad, "model_output": torch.zeros(1)})
    (box.folder / "states" / state_id[:2] / f"{state_id}.safetensors").write_bytes(data)
    with sqlite3.connect(box.folder / "ledger.db") as db:
        db.execute("UPDATE states SET checksum = ? WHERE id = ?", (codec.checksum(data), state_id))
    db.close()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("kind", [CLEAN, TRAJECTORY])
async def test_a_stored_state_gives_way_to_the_next(
    kind: Any, dtype: torch.dtype, boxes: Any, request_: GenerationRequest
) -> None:
    box = await boxes(kind=kind)
    best = await box.keep(request_, text(0), 1.0, ks=(2, 4))
    second = await box.keep(seeded(request_, 2), text(5), 2.0, ks=(2, 4))
    entries = {e.id: e for e in (await box.cache.list_entries(Target(), 9))[0]}
    for state in entries[best].states:
        spoil_stored(box, state.id, dtype)
    found = await box.look_up(seeded(request_, 3), text(1))
    assert found.parent == second
    exact = await box.look_up(request_, text(0))
    assert exact.parent in ("", second)
    while box.count("states_dropped_total", reason="not_finite") < (1 if kind is CLEAN else 2):  # behind the requests
        await asyncio.sleep(0)


@pytest.mark.parametrize("value", BAD)
async def test_nothing_keeps_it_whoever_hands_it_over(value: float, boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    assert await box.keep(request_, text(0), value) == ""
    assert isinstance(await box.look_up(request_, text(0)), Miss)
    assert box.count("states_dropped_total", reason="not_finite") == 1


async def test_a_row_of_the_index_that_is_not_finite_is_like_nothing(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    entry = await box.keep(seeded(request_, 5), text(90), 1.0)
    space = box.cache.query(request_, text(0)).space
    await box.index.insert([IndexRow(entry, space, np.full(2, np.nan, np.float32))])
    assert isinstance(await box.look_up(request_, text(0)), Miss)


async def test_a_key_in_the_ledger_that_is_not_finite_reaches_no_index(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    entry = await box.keep(request_, text(0), 1.0)
    await box.close()
    with sqlite3.connect(box.folder / "ledger.db") as db:
        db.execute("UPDATE entries SET key = ?", (np.full(2, np.nan, np.float32).tobytes(),))
    db.close()
    box = await boxes()
    assert entry not in await box.index.entry_ids()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.int8])
def test_every_dtype_can_be_asked(dtype: torch.dtype) -> None:
    assert is_finite(torch.ones(3).to(dtype))
    if dtype.is_floating_point:
        assert not is_finite(torch.tensor([1.0, float("nan")]).to(dtype))
