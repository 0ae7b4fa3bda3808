"""Shadow caches: the one at 1x is the replay, the others are caches of their sizes, and changes keep what they can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import LCBFU, PolicyRecord
from diffcache_core.cache.resume import Level, Levels
from diffcache_core.cache.states import BLOCK_BYTES, StateKind
from diffcache_core.names import SHADOW_MULTIPLES
from diffcache_core.simulator.cache import Neighbour, RestoredState, SimulatedRequest
from diffcache_core.simulator.replay import ReplayOptions, ReplayRequest, replay
from diffcache_serving.simulated_caches import caches as caches_module
from diffcache_serving.simulated_caches.caches import WAITING, CachesBySize, Restored
from diffcache_serving.simulated_caches.events import Answered, Asked, Purged, digest
from tests.reachable import count_reachable

LEVELS = Levels((Level(25, 0.65), Level(50, 0.9)), reseed_skip_percent=25)
N = 8
SPACE = b"space"
SIZES = {StateKind.CLEAN: BLOCK_BYTES}


@dataclass(frozen=True)
class Prompt:
    topic: int
    wording: int
    seed: int

    @property
    def key(self) -> np.ndarray:
        """Prompts of one topic are alike: cosine about .8; of different ones hardly."""
        rng = np.random.default_rng([self.topic, self.wording])
        own, shared = rng.normal(size=32), np.random.default_rng(self.topic).normal(size=32)
        key = shared / np.linalg.norm(shared) + 0.5 * own / np.linalg.norm(own)
        return (key / np.linalg.norm(key)).astype(np.float32)

    @property
    def name(self) -> str:
        return f"{self.topic}.{self.wording}"


def asked(prompt: Prompt, ticket: str, space: bytes = SPACE, **changes: Any) -> Asked:
    request = SimulatedRequest(
        exact=digest(f"{space!r}.{prompt.name}.{prompt.seed}"),
        prompt=digest(prompt.name),
        seed=prompt.seed,
        steps=N,
        **changes,
    )
    return Asked(ticket, space, request, prompt.key, digest("tenant"), digest(prompt.name))


def serve(caches: CachesBySize, prompts: Sequence[Prompt], **changes: Any) -> None:
    for i, prompt in enumerate(prompts):
        caches.take(asked(prompt, str(i), **changes))
        caches.take(Answered(str(i), True, f"entry-{i}", SIZES))


class Counts:
    """What the caches report."""

    def __init__(self) -> None:
        self.steps: dict[float, int] = dict.fromkeys(SHADOW_MULTIPLES, 0)
        self.skipped: dict[float, int] = dict.fromkeys(SHADOW_MULTIPLES, 0)

    def __call__(self, multiple: float, steps: int, skipped: int) -> None:
        self.steps[multiple] += steps
        self.skipped[multiple] += skipped


def caches_of(entries: float, counts: Counts | None = None, levels: Levels = LEVELS, **options: int) -> CachesBySize:
    budget = Budget(bytes=entries * BLOCK_BYTES)
    return CachesBySize(LCBFU(), levels, StateKind.CLEAN, budget, counts or Counts(), **options)


def replayed(prompts: Sequence[Prompt], entries: int) -> int:
    """Steps saved by the replay of the same stream."""
    keys = np.stack([prompt.key for prompt in prompts])
    requests = []
    for i, prompt in enumerate(prompts):
        similarities = keys[:i] @ keys[i]
        near = [j for j in np.argsort(-similarities, kind="stable") if similarities[j] >= LEVELS.floor]
        neighbours = [Neighbour(int(j), min(1.0, float(similarities[j]))) for j in near]
        requests.append(ReplayRequest(prompt.name, prompt.seed, N, neighbours))
    return replay(requests, ReplayOptions(LCBFU(), LEVELS, entries)).skipped


prompts_ = st.lists(st.builds(Prompt, st.integers(0, 4), st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=60)


@given(prompts_, st.integers(2, 6))
def test_every_cache_is_the_replay_at_its_size(prompts: list[Prompt], half: int) -> None:
    """An even capacity, so that every multiple but .75 is a whole number of states; that one is rounded down."""
    counts = Counts()
    serve(caches_of(2 * half, counts), prompts)
    for multiple in SHADOW_MULTIPLES:
        assert counts.steps[multiple] == N * len(prompts)
        assert counts.skipped[multiple] == replayed(prompts, int(2 * half * multiple))


def test_larger_caches_save_more_on_a_long_tail() -> None:
    rng = np.random.default_rng(0)
    stream = [Prompt(int(t), int(w), 0) for t, w in zip(rng.zipf(1.2, 600) % 80, rng.integers(0, 3, 600), strict=True)]
    caches = caches_of(20)
    serve(caches, stream)
    ratios = caches.ratios()
    assert list(ratios) == list(SHADOW_MULTIPLES)
    assert ratios[0.5] < ratios[1.0] < ratios[2.0] < ratios[4.0]


def test_a_key_is_held_once_and_freed_with_its_last_holder() -> None:
    caches = caches_of(4)
    serve(caches, [Prompt(i, 0, 0) for i in range(100)])
    assert [caches.size_of(m) for m in SHADOW_MULTIPLES] == [2, 3, 4, 6, 8, 16]
    assert 16 <= len(caches) <= 2 + 3 + 4 + 6 + 8 + 16
    caches.take(Purged())
    assert len(caches) == 0


def test_spaces_do_not_meet() -> None:
    counts = Counts()
    caches = caches_of(10, counts)
    for space in (b"one", b"two"):
        caches.take(asked(Prompt(0, 0, 0), "t", space))
        caches.take(Answered("t", True, "", SIZES))
    caches.take(asked(Prompt(0, 1, 0), "t", b"one"))
    caches.take(Answered("t", True, "", SIZES))
    assert set(counts.skipped.values()) == {2}


@pytest.mark.parametrize(
    ("first", "second", "saved"),
    [
        ({}, {}, N),
        ({"writes": False}, {}, 0),  # READ_ONLY
        ({"reads": False}, {}, N),  # REFRESH
        ({}, {"reads": False}, 0),
        ({}, {"seed_is_explicit": False}, 4),  # no exact tier: its own run, as far as the top level goes
        ({}, {"max_skip": 30, "seed_is_explicit": False}, 2),
        ({}, {"min_similarity": 1.0}, N),
    ],
)
def test_requests_may_ask_for_less(first: dict[str, object], second: dict[str, object], saved: int) -> None:
    counts = Counts()
    caches = caches_of(10, counts)
    serve(caches, [Prompt(0, 0, 0)], **first)
    serve(caches, [Prompt(0, 0, 0)], **second)
    assert set(counts.skipped.values()) == {saved}
    assert set(counts.steps.values()) == {2 * N}


def test_bypass_counts_its_steps_and_touches_nothing() -> None:
    counts = Counts()
    caches = caches_of(10, counts)
    request = SimulatedRequest(b"", b"", 0, N, reads=False, writes=False)
    caches.take(Asked("t", SPACE, request, np.empty(0, np.float32)))
    caches.take(Answered("t", True, "", SIZES))
    assert (len(caches), counts.steps[1.0], counts.skipped[1.0]) == (0, N, 0)


def test_a_flagged_picture_is_not_kept() -> None:
    caches = caches_of(10)
    caches.take(asked(Prompt(0, 0, 0), "t"))
    caches.take(Answered("t", False, "", SIZES))
    assert len(caches) == 0


def test_requests_in_flight_do_not_see_each_other() -> None:
    counts = Counts()
    caches = caches_of(10, counts)
    for ticket in "ab":
        caches.take(asked(Prompt(0, 0, 0), ticket))
    for ticket in "ab":
        caches.take(Answered(ticket, True, "", SIZES))
    assert set(counts.skipped.values()) == {0}
    assert len(caches) == 1  # the second replaced the first


def test_what_is_never_answered_is_forgotten() -> None:
    counts = Counts()
    caches = caches_of(2, counts)
    request = SimulatedRequest(b"", b"", 0, N, reads=False, writes=False)
    for i in range(WAITING + 1):
        caches.take(Asked(str(i), SPACE, request, np.empty(0, np.float32)))
    caches.take(Answered("0", True))
    caches.take(Answered("unknown", True))
    assert counts.steps[1.0] == 0
    caches.take(Answered(str(WAITING), True))
    assert counts.steps[1.0] == N


@pytest.mark.parametrize(
    ("purge", "left"),
    [
        (Purged(), 0),
        (Purged(tenant=digest("tenant")), 0),
        (Purged(tenant=digest("another")), 2),
        (Purged(text=digest("0.0")), 1),
        (Purged(entry="entry-1"), 1),
        (Purged(tenant=digest("another"), text=digest("0.0")), 2),
    ],
)
def test_purges_reach_them(purge: Purged, left: int) -> None:
    caches = caches_of(10)
    serve(caches, [Prompt(0, 0, 0), Prompt(1, 0, 0)])
    caches.take(purge)
    assert len(caches) == left


def restored(prompt: Prompt, score: float) -> Restored:
    event = asked(prompt, "")
    states = [RestoredState(StateKind.CLEAN, 0, BLOCK_BYTES, 0, score)]
    return Restored(f"entry-{prompt.topic}", SPACE, prompt.key, event.request, states, 0, 1.0, 0)


def test_they_start_from_the_ledger_with_the_best_first() -> None:
    counts = Counts()
    caches = caches_of(4, counts)
    caches.restore([restored(Prompt(i, 0, 0), score=float(i)) for i in range(4)], PolicyRecord())
    assert [caches.size_of(m) for m in SHADOW_MULTIPLES] == [2, 3, 4, 4, 4, 4]
    serve(caches, [Prompt(0, 0, 0)])  # the lowest score: only caches of 1x and above took it
    assert [counts.skipped[m] for m in SHADOW_MULTIPLES] == [0, 0, N, N, N, N]


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0, 8.0])
def test_another_capacity_keeps_what_fits(factor: float) -> None:
    caches = caches_of(8)
    serve(caches, [Prompt(i, 0, 0) for i in range(100)])
    before = {m: caches.size_of(m) for m in SHADOW_MULTIPLES}
    caches.rebase(LEVELS, Budget(8 * factor * BLOCK_BYTES))
    for multiple in SHADOW_MULTIPLES:
        wanted = 8 * factor * multiple
        held = before[1.0] if multiple == 1.0 else max(before.values())
        assert caches.size_of(multiple) == min(int(wanted), held)
    serve(caches, [Prompt(i, 0, 1) for i in range(100, 700)])  # and they go on, to the new size
    assert [caches.size_of(m) for m in SHADOW_MULTIPLES] == [int(8 * factor * m) for m in SHADOW_MULTIPLES]


def test_other_levels_hold_at_once_and_cost_nothing() -> None:
    counts = Counts()
    caches = caches_of(10, counts)
    serve(caches, [Prompt(0, 0, 0)])
    caches.rebase(Levels((Level(50, 0.999),)), Budget(10 * BLOCK_BYTES))
    assert caches.ratios() == {}  # the window begins anew
    serve(caches, [Prompt(0, 1, 0)])
    assert set(counts.skipped.values()) == {0}
    caches.rebase(LEVELS, Budget(10 * BLOCK_BYTES))
    serve(caches, [Prompt(0, 2, 0)])
    assert set(counts.skipped.values()) == {2}


def test_a_cache_that_grows_too_large_is_given_up() -> None:
    caches = caches_of(4, max_entries=6)
    serve(caches, [Prompt(i, 0, 0) for i in range(100)])
    assert list(caches.ratios()) == [0.5, 0.75, 1.0, 1.5]
    assert len(caches) <= 2 + 3 + 4 + 6
    caches.rebase(LEVELS, Budget(1 * BLOCK_BYTES))
    serve(caches, [Prompt(i, 0, 0) for i in range(100)])
    assert list(caches.ratios()) == list(SHADOW_MULTIPLES)


def test_trajectory_states_are_those_of_runs_from_noise() -> None:
    """Stored at the levels' steps: a later request resumes at the largest one allowed."""
    sizes = {StateKind.CLEAN: BLOCK_BYTES, StateKind.TRAJECTORY: 2 * BLOCK_BYTES}
    counts = Counts()
    caches = CachesBySize(LCBFU(), LEVELS, StateKind.TRAJECTORY, Budget(20 * BLOCK_BYTES), counts)
    for i, prompt in enumerate([Prompt(0, 0, 0), Prompt(0, 1, 0), Prompt(0, 0, 1)]):
        caches.take(asked(prompt, str(i)))
        caches.take(Answered(str(i), True, "", sizes))
    assert set(counts.skipped.values()) == {2 + 4}


def test_spaces_that_callers_make_up_are_forgotten_with_their_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each negative prompt, guidance and size of a picture is a space of its own."""
    monkeypatch.setattr(caches_module, "SPACES_KEPT", 100)
    caches = caches_of(8)

    def made_up(count: int) -> None:
        for i in range(count):
            serve(caches, [Prompt(i, 0, 0)], space=digest(f"{len(caches)} {count} {i}"))

    made_up(1200)  # until the window of the exported ratio is full
    held, key_bytes = count_reachable(caches), caches.key_bytes
    made_up(2400)
    assert count_reachable(caches) <= held * 1.05
    assert caches.key_bytes == key_bytes


def test_a_space_of_one_entry_takes_the_room_of_one() -> None:
    caches = caches_of(100)
    for i in range(100):
        serve(caches, [Prompt(i, 0, 0)], space=digest(str(i)))
    assert caches.key_bytes < 100 * 2 * Prompt(0, 0, 0).key.nbytes
