"""Another model, scheduler, dtype or kind of state: earlier entries are neither served nor lost, until their time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from diffcache_core.cache.budget import Budget
from diffcache_core.generation import GenerationRequest
from diffcache_serving.upkeep import keep_up
from diffcache_serving.values.found import Exact, Miss, Resume
from tests.serving.cache.box import CLEAN, STATE_BYTES, TRAJECTORY, Box, seeded, text

OTHERS: dict[str, dict[str, Any]] = {
    "model": {"model": "beef", "embedder": "f"},
    "embedder": {"embedder": "f"},
    "dtype": {"dtype": "float16"},
    "kind": {"kind": TRAJECTORY},
}
Boxes = Callable[..., Any]


async def reopened(box: Box, boxes: Boxes, **options: Any) -> Box:
    await box.close()
    again: Box = await boxes(**options)
    return again


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
async def test_what_no_longer_fits_is_kept_unserved_and_comes_back(
    other: dict[str, Any], boxes: Boxes, request_: GenerationRequest
) -> None:
    box = await boxes()
    kept = await box.keep(request_, text(0), 1.0)
    box = await reopened(box, boxes, **other)
    assert isinstance(await box.look_up(request_, text(0)), Miss)
    assert isinstance(await box.look_up(seeded(request_, 2), text(1)), Miss)
    await box.cache.purge_retired(before=time.time() - 3600)
    assert box.repaired.entries == 1

    box = await reopened(box, boxes)
    assert isinstance(await box.look_up(request_, text(0)), Exact)
    near = await box.look_up(seeded(request_, 2), text(1))
    assert isinstance(near, Resume)
    assert near.parent == kept
    await box.cache.purge_retired(before=time.time() + 3600)
    assert box.count("evictions_total", reason="space") == 0


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
async def test_when_its_time_ends_it_leaves_ledger_and_store(
    other: dict[str, Any], boxes: Boxes, request_: GenerationRequest
) -> None:
    box = await boxes()
    await box.keep(request_, text(0), 1.0)
    box = await reopened(box, boxes, **other)
    mine = await box.keep(request_, text(0), 2.0)
    await box.cache.purge_retired(before=time.time() + 1)
    assert box.count("evictions_total", reason="space") == 1
    assert len(box.files()) == 1
    exact = await box.look_up(request_, text(0))
    assert isinstance(exact, Exact)
    assert exact.parent == mine


async def test_the_scheduler_separates_trajectory_states_only(boxes: Boxes, request_: GenerationRequest) -> None:
    for kind, resumes in ((CLEAN, Resume), (TRAJECTORY, Miss)):
        box = await boxes(kind=kind)
        await box.keep(request_, text(0), 1.0, ks=(2, 4) if kind is TRAJECTORY else ())
        box = await reopened(box, boxes, kind=kind, scheduler="Euler")
        assert isinstance(await box.look_up(seeded(request_, 2), text(1)), resumes)
        await box.cache.purge_retired(before=time.time() + 1)
        assert box.repaired.entries == (1 if kind is CLEAN else 2)
        assert (await box.cache.totals()).entries == (1 if kind is CLEAN else 0)
        await box.close()


async def test_retired_entries_make_room_first(boxes: Boxes, request_: GenerationRequest) -> None:
    room = Budget(2 * STATE_BYTES, 9)
    box = await boxes(budget=room)
    await box.keep(request_, text(0), 1.0)
    box = await reopened(box, boxes, budget=room, dtype="float16")
    for seed in (1, 2):
        await box.keep(seeded(request_, seed), text(90 * seed), 2.0)
    assert box.count("evictions_total", reason="capacity") == 1
    for seed in (1, 2):
        assert isinstance(await box.look_up(seeded(request_, seed), text(90 * seed)), Exact)


async def test_a_smaller_budget_holds_at_once(boxes: Boxes, request_: GenerationRequest) -> None:
    box = await boxes()
    for seed in range(4):
        await box.keep(seeded(request_, seed), text(30.0 * seed), 1.0)
    await box.cache.resize(Budget(2 * STATE_BYTES, 9))
    assert (await box.cache.totals()).bytes == 2 * STATE_BYTES
    assert len(box.files()) == 2
    assert box.count("evictions_total", reason="capacity") == 2
    assert box.count("capacity_bytes") == 2 * STATE_BYTES
    await box.keep(seeded(request_, 9), text(77), 1.0)
    assert (await box.cache.totals()).bytes == 2 * STATE_BYTES


# ---- behind the requests ---------------------------------------------------------------------------------------------


@pytest.fixture
async def upkeep() -> AsyncIterator[Callable[..., None]]:
    tasks: list[asyncio.Task[None]] = []

    def start(*arguments: Any) -> None:
        tasks.append(asyncio.create_task(keep_up(*arguments)))

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_upkeep_purges_when_the_grace_has_passed(
    boxes: Boxes, request_: GenerationRequest, upkeep: Callable[..., None]
) -> None:
    box = await boxes()
    await box.keep(request_, text(0), 1.0)
    box = await reopened(box, boxes, dtype="float16")
    upkeep(box.cache, lambda: 0.0, lambda before: None)
    while not box.count("evictions_total", reason="space"):
        await asyncio.sleep(0)
    assert box.files() == []


async def test_upkeep_tells_what_to_remove_and_keeps_the_rest(
    boxes: Boxes, request_: GenerationRequest, upkeep: Callable[..., None]
) -> None:
    box = await boxes()
    await box.keep(request_, text(0), 1.0)
    box = await reopened(box, boxes, dtype="float16")
    told: list[float] = []
    upkeep(box.cache, lambda: 100.0, told.append)
    while not told:
        await asyncio.sleep(0)
    assert told[0] <= time.time() - 100
    assert len(box.files()) == 1
