"""The cache as a whole: real ledger, store and index; latents and keys made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.resume import Levels
from diffcache_core.generation import CacheMode, GenerationRequest, Result
from diffcache_serving.cache.ledger import Target
from diffcache_serving.values.found import CapturedState, Exact, Miss, Resume
from tests.serving.cache.box import (
    CLEAN,
    STATE_BYTES,
    TRAJECTORY,
    Box,
    degrees,
    latent_of,
    seeded,
    states,
    text,
)


async def test_a_similar_prompt_resumes_and_the_same_request_is_exact(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    entry = await box.keep(request_, text(0), 1.0)
    similar = await box.look_up(seeded(request_, 2), text(degrees(0.85)))
    assert isinstance(similar, Resume)
    assert (similar.k, similar.depth, similar.parent, similar.granted_skip) == (4, 1, entry, 50)
    assert similar.similarity == pytest.approx(0.85, abs=1e-5)
    assert latent_of(similar) == 1.0
    exact = await box.look_up(request_, text(0))
    assert isinstance(exact, Exact)
    assert (exact.k, exact.depth, latent_of(exact)) == (8, 0, 1.0)
    assert isinstance(await box.look_up(seeded(request_, 2), text(degrees(0.6))), Miss)


async def test_one_reads_ones_own_writes_before_the_keeper_has_run(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    box.cache.keep(box.cache.query(request_, text(0)), Miss(), states(1.0))
    assert isinstance(await box.look_up(request_, text(0)), Exact)
    assert isinstance(await box.look_up(seeded(request_, 2), text(10)), Resume)


async def test_exact_needs_an_explicit_seed_and_equal_parameters(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    await box.keep(request_, text(0), 1.0)
    for other in (
        seeded(request_, 1, explicit=False),
        seeded(request_, 2),
        replace(request_, steps=9),
        replace(request_, guidance=4.0),
        replace(request_, width=32),
    ):
        assert not isinstance(await box.look_up(other, text(0)), Exact)
    assert not isinstance(await box.look_up(request_, text(0, prompt=5)), Exact)


async def test_exact_hits_what_a_drawn_seed_left(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    await box.keep(seeded(request_, 9, explicit=False), text(0), 1.0)
    assert isinstance(await box.look_up(seeded(request_, 9), text(0)), Exact)


async def test_exact_returns_what_it_returned_with_its_depth_unless_the_caller_tightens(
    boxes: Any, request_: GenerationRequest
) -> None:
    box = await boxes()
    await box.keep(request_, text(0), 1.0)
    second = seeded(request_, 2)
    at = text(degrees(0.7))
    found = await box.look_up(second, at)
    await box.keep(second, at, 2.0, found)
    exact = await box.look_up(second, at)
    assert isinstance(exact, Exact)
    assert (exact.depth, latent_of(exact)) == (1, 2.0)
    assert not isinstance(await box.look_up(replace(second, max_skip_percent=10), at), Exact)
    assert not isinstance(await box.look_up(replace(second, min_similarity=0.9), at), Exact)
    assert isinstance(await box.look_up(replace(request_, max_skip_percent=0, min_similarity=1.0), text(0)), Exact)


async def test_a_stored_hit_can_be_resumed_from_and_tells_its_depth(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    await box.keep(request_, text(0), 1.0)
    for i in range(1, 4):
        request, at = seeded(request_, i + 1), text(30.0 * i)  # each near the one before it only
        found = await box.look_up(request, at)
        assert (found.result, found.depth, latent_of(found)) == (Result.APPROXIMATE, i, float(i))
        await box.keep(request, at, i + 1.0, found)


async def test_another_seed_of_the_same_prompt_is_capped(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    await box.keep(request_, text(0), 1.0)
    found = await box.look_up(seeded(request_, 2), text(0))
    assert (found.result, found.k) == (Result.APPROXIMATE, 2)


@pytest.mark.parametrize(
    ("mode", "result", "entries"),
    [
        (CacheMode.DEFAULT, Result.APPROXIMATE, 2),
        (CacheMode.READ_ONLY, Result.APPROXIMATE, 1),
        (CacheMode.REFRESH, Result.MISS, 2),
        (CacheMode.BYPASS, Result.BYPASS, 1),
    ],
)
async def test_modes(mode: CacheMode, result: Result, entries: int, boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    await box.keep(request_, text(0), 1.0)
    request = seeded(request_, 2, cache_mode=mode)
    found = await box.look_up(request, text(10))
    assert found.result is result
    await box.keep(request, text(10), 2.0, found)
    assert (await box.cache.totals()).entries == entries


async def test_refresh_replaces_what_exact_returns(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    await box.keep(request_, text(0), 1.0)
    await box.keep(replace(request_, cache_mode=CacheMode.REFRESH), text(0), 2.0)
    assert latent_of(await box.look_up(request_, text(0))) == 2.0
    assert len(box.files()) == 1
    assert box.count("evictions_total", reason="replaced") == 1


@pytest.mark.parametrize("shared", [False, True])
async def test_tenants_meet_only_in_a_shared_cache(shared: bool, boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes(shared=shared)
    await box.keep(replace(request_, tenant="acme"), text(0), 1.0)
    for request in (request_, seeded(request_, 2)):
        found = await box.look_up(replace(request, tenant="other"), text(0))
        assert isinstance(found, Miss) is not shared


async def test_both_budgets_hold_on_disk(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes(budget=Budget(5 * STATE_BYTES, 100))
    for i in range(9):
        await box.keep(seeded(request_, i), text(i * 90.0, prompt=i), float(i))
    assert len(box.files()) == 5
    assert box.count("evictions_total", reason="capacity") == 4
    assert box.count("cache_bytes") == 5 * STATE_BYTES
    assert {n.entry_id for n in await box.index.search(box.cache.query(request_, text(0)).space, text(0).key, 99)} == {
        e.id for e in (await box.cache.list_entries(Target(), 99))[0]
    }
    few = await Box(box.folder / "few").open(budget=Budget(2**30, 3))
    for i in range(5):
        await few.keep(seeded(request_, i), text(i * 90.0, prompt=i), float(i))
    assert len(few.files()) == 3
    await few.close()


async def test_when_full_a_result_granted_the_top_level_is_not_stored(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes(budget=Budget(2 * STATE_BYTES, 100))
    await box.keep(request_, text(0), 1.0)
    await box.keep(seeded(request_, 2), text(180), 2.0)
    for similarity, kept in ((0.9, 0), (0.7, 1)):
        at = text(degrees(similarity))
        request = seeded(request_, 3)
        found = await box.look_up(request, at)
        before = box.count("evictions_total", reason="capacity")
        await box.keep(request, at, 3.0, found)
        assert box.count("evictions_total", reason="capacity") - before == kept
    assert box.count("states_dropped_total", reason="admission") == 1


async def test_what_is_larger_than_the_cache_is_not_kept(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes(budget=Budget(4096, 100))
    await box.keep(request_, text(0), 1.0)
    assert (box.files(), box.count("states_dropped_total", reason="size")) == ([], 1)


async def test_the_keepers_queue_is_bounded(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    large = [CapturedState(CLEAN, 0, {"latent": torch.zeros(40 * 2**20 // 4)})]
    assert box.cache.keep(box.cache.query(request_, text(0)), Miss(), large)
    assert not box.cache.keep(box.cache.query(seeded(request_, 2), text(9)), Miss(), large)
    assert box.count("states_dropped_total", reason="queue") == 1


async def test_a_useful_state_outlives_the_others(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes(budget=Budget(3 * STATE_BYTES, 100))
    useful = await box.keep(request_, text(0), 1.0)
    for i in range(1, 12):
        assert isinstance(await box.look_up(seeded(request_, 99), text(20)), Resume)
        await box.keep(seeded(request_, i), text(90 + 20.0 * i, prompt=i), float(i))
    entries, _ = await box.cache.list_entries(Target(), 99)
    assert useful in {e.id for e in entries}


# ---- purge -----------------------------------------------------------------------------------------------------------


async def test_a_purge_takes_what_waits_for_the_keeper_too(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    await box.keep(request_, text(0), 1.0)
    box.cache.keep(box.cache.query(seeded(request_, 2), text(50)), Miss(), states(2.0))
    purged = await box.cache.purge(Target(prompt=request_.prompt))
    assert (purged.entries, purged.bytes) == (2, 2 * STATE_BYTES)
    assert box.files() == []
    assert box.count("evictions_total", reason="purge") == 2
    assert isinstance(await box.look_up(request_, text(0)), Miss)
    assert isinstance(await box.look_up(seeded(request_, 3), text(0)), Miss)


# ---- Trajectory ------------------------------------------------------------------------------------------------------


async def test_trajectory_states_come_from_runs_from_noise_and_resume_their_own_run(
    boxes: Any, request_: GenerationRequest
) -> None:
    box = await boxes(kind=TRAJECTORY)
    assert box.cache.checkpoints(request_, Miss()) == (2, 4)
    entry = await box.keep(seeded(request_, 1, explicit=False), text(0), 1.0, ks=(2, 4))
    own = await box.look_up(seeded(request_, 1, explicit=False), text(0))
    assert isinstance(own, Resume)
    assert (own.k, own.own_run, own.depth, own.kind) == (4, True, 0, TRAJECTORY)
    request, at = seeded(request_, 2), text(20)
    other = await box.look_up(request, at)
    assert isinstance(other, Resume)
    assert (other.k, other.own_run, other.depth, other.parent) == (4, False, 1, entry)
    assert box.cache.checkpoints(request, other) == ()
    await box.keep(request, at, 2.0, other)  # only its final latent: for EXACT, not to resume from
    assert isinstance(await box.look_up(request, at), Exact)
    third = await box.look_up(seeded(request_, 3), at)
    assert isinstance(third, Resume)
    assert third.parent == entry
    assert not isinstance(await box.look_up(replace(request_, steps=9), text(0)), Resume), "another N, another grid"


async def test_an_entry_without_its_trajectory_leaves_the_index(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes(kind=TRAJECTORY, budget=Budget(3 * STATE_BYTES, 100))
    first = await box.keep(request_, text(0), 1.0, ks=(2, 4))
    await box.keep(seeded(request_, 2), text(90), 2.0, ks=(2,))
    kept = {e.id: {s.kind for s in e.states} for e in (await box.cache.list_entries(Target(), 9))[0]}
    assert (first in await box.index.entry_ids()) == (TRAJECTORY in kept.get(first, set()))


# ---- odd keys --------------------------------------------------------------------------------------------------------


async def test_a_key_that_is_no_direction_neither_hits_nor_is_kept(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes()
    await box.keep(request_, text(0), 1.0)
    broken = replace(text(0), key=np.array([np.nan, np.nan], np.float32))
    assert isinstance(await box.look_up(seeded(request_, 2), broken), Miss)
    assert await box.keep(seeded(request_, 2), broken, 2.0) == ""


async def test_without_levels_only_exact_hits(boxes: Any, request_: GenerationRequest) -> None:
    box = await boxes(levels=Levels())
    await box.keep(request_, text(0), 1.0)
    assert isinstance(await box.look_up(request_, text(0)), Exact)
    assert isinstance(await box.look_up(seeded(request_, 2), text(0)), Miss)
