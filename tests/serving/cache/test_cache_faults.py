"""The cache when states are damaged, a process was killed, or the index is dead or slow."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import LCBFU
from diffcache_core.generation import GenerationRequest
from diffcache_serving.cache.cache import LOOK_UP_SECONDS, Cache
from diffcache_serving.cache.index import IndexRow, LayeredIndex, MemoryIndex
from diffcache_serving.cache.ledger import Target
from diffcache_serving.cache.ledger_sqlite import SqliteLedger
from diffcache_serving.cache.milvus import MilvusIndex
from diffcache_serving.cache.store import StateStore
from diffcache_serving.metrics import Metrics
from diffcache_serving.values.found import Exact, Miss, Resume
from diffcache_serving.values.identity import CacheIdentity
from tests.serving.cache.box import (
    CLEAN,
    LEVELS,
    STATE_BYTES,
    Box,
    latent_of,
    seeded,
    text,
)


@pytest.mark.parametrize("damage", ["gone", "torn", "swapped", "foreign"])
async def test_a_damaged_state_gives_way_to_the_next(damage: str, boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    best = await box.keep(request_, text(0), 1.0)
    second = await box.keep(seeded(request_, 2), text(5), 2.0)
    by_entry = {
        e.id: box.folder / "states" / e.states[0].id[:2] / f"{e.states[0].id}.safetensors"
        for e in (await box.cache.list_entries(Target(), 9))[0]
    }
    path = by_entry[best]
    match damage:
        case "gone":
            path.unlink()
        case "torn":
            path.write_bytes(path.read_bytes()[:100])
        case "swapped":
            shutil.copy(by_entry[second], path)
        case "foreign":
            path.write_bytes(b"not a state")
    found = await box.look_up(seeded(request_, 3), text(1))
    assert (found.parent, latent_of(found)) == (second, 2.0)
    reason = "missing" if damage == "gone" else "damaged"
    while not box.count("states_dropped_total", reason=reason):  # it is dropped behind the request
        await asyncio.sleep(0)
    assert box.count("states_dropped_total", reason=reason) == 1
    await box.close()
    box = await boxes()
    assert [e.id for e in (await box.cache.list_entries(Target(), 9))[0]] == [second]


async def test_when_all_candidates_are_gone_it_is_a_miss(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    for i in range(5):
        await box.keep(seeded(request_, i), text(float(i)), float(i))
    for path in box.files():
        path.unlink()
    assert isinstance(await box.look_up(request_, text(0)), Miss)
    assert isinstance(await box.look_up(seeded(request_, 9), text(0.5)), Miss)


# ---- crash safety ----------------------------------------------------------------------------------------------------


async def test_the_start_repairs_what_a_kill_can_leave(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    whole = await box.keep(request_, text(0), 1.0)
    await box.keep(seeded(request_, 2), text(90), 2.0)
    space = box.cache.query(request_, text(0)).space
    (lost,) = [e for e in (await box.cache.list_entries(Target(), 9))[0] if e.id != whole]
    await box.close()
    (box.folder / "states" / lost.states[0].id[:2] / f"{lost.states[0].id}.safetensors").unlink()  # bytes lost
    stray = box.folder / "states" / "ab" / ("ab" * 16 + ".safetensors")  # bytes written, the ledger not yet
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"x" * 100)
    index = MemoryIndex()
    await index.insert([IndexRow("dead", space, text(0).key)])  # dropped from the ledger, the index not yet
    box = await boxes(index=index)
    assert (box.repaired.entries, box.repaired.states_missing, box.repaired.files_swept) == (1, 1, 1)
    assert await index.entry_ids() == {whole}
    assert len(box.files()) == 1
    assert latent_of(await box.look_up(request_, text(0))) == 1.0


async def test_a_row_without_an_entry_is_dropped_when_it_is_met(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    await box.keep(request_, text(0), 1.0)
    await box.index.insert([IndexRow("dead", box.cache.query(request_, text(0)).space, text(0).key)])
    assert latent_of(await box.look_up(seeded(request_, 2), text(1))) == 1.0
    while "dead" in await box.index.entry_ids():
        await asyncio.sleep(0)


async def test_everything_is_there_after_a_restart(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    await box.keep(request_, text(0), 1.0)
    await box.close()
    box = await boxes()
    assert box.repaired.entries == 1
    assert latent_of(await box.look_up(seeded(request_, 2), text(5))) == 1.0
    assert isinstance(await box.look_up(request_, text(0)), Exact)


async def test_a_smaller_capacity_holds_from_the_start(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    for i in range(6):
        await box.keep(seeded(request_, i), text(i * 50.0, prompt=i), float(i))
    await box.close()
    box = await boxes(budget=Budget(2 * STATE_BYTES, 100))
    assert (box.repaired.entries, len(box.files())) == (2, 2)


# ---- an index that is dead or slow -----------------------------------------------------------------------------------


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Somebody accepts connections there and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def test_a_dead_index_makes_misses_and_metrics_and_is_left_alone_for_a_while(
    boxes: Any, request_: GenerationRequest, closed_port: int
) -> None:
    index = MilvusIndex(lambda: f"http://127.0.0.1:{closed_port}", "c", 2)
    box = await boxes(index=index, look_up_seconds=LOOK_UP_SECONDS)
    assert box.count("index_errors_total", op="repair") == 1
    for i in range(5):
        assert isinstance(await box.look_up(seeded(request_, i), text(0)), Miss)
    assert box.count("index_errors_total", op="look_up") == 3
    assert box.count("look_ups_skipped_total") == 2


async def test_before_a_dead_index_fresh_entries_still_serve(
    boxes: Any, request_: GenerationRequest, closed_port: int
) -> None:
    index = LayeredIndex(MilvusIndex(lambda: f"http://127.0.0.1:{closed_port}", "c", 2), lambda op, error: None)
    box = await boxes(index=index, look_up_seconds=LOOK_UP_SECONDS)
    await box.keep(request_, text(0), 1.0)
    assert isinstance(await box.look_up(seeded(request_, 2), text(5)), Resume)


async def test_a_slow_index_costs_at_most_the_deadline(
    boxes: Any, request_: GenerationRequest, silent_port: int, folder: Path
) -> None:
    box = Box(folder)
    box.metrics = Metrics("emoji")
    box.ledger = await SqliteLedger.open(None, LCBFU())
    index = MilvusIndex(lambda: f"http://127.0.0.1:{silent_port}", "c", 2, call_seconds=1.0)
    identity = CacheIdentity("emoji", "f00d", "e", "float32", "DDIM", shared=False)
    cache = Cache(box.ledger, StateStore(None), index, box.metrics, identity, LEVELS, CLEAN, Budget(2**20, 9))
    assert isinstance(await cache.look_up(cache.query(seeded(request_, 2), text(0))), Miss)
    assert box.count("index_errors_total", op="look_up") == 1
    await cache.close()
