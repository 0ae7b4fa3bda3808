"""The replay over keys only: what it saves, whom it gives up, and that it never saves more than the unbounded cache."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcache_core.cache.policies import FIFO, LCBFU, LFU, LRU, POLICIES
from diffcache_core.cache.resume import Level, Levels
from diffcache_core.simulator.cache import Neighbour
from diffcache_core.simulator.replay import ReplayOptions, ReplayOutcome, ReplayRequest, replay

LEVELS = Levels((Level(25, 0.65), Level(50, 0.9)), reseed_skip_percent=25)
N = 8


def request(prompt: str, *neighbours: tuple[int, float], seed: int = 0) -> ReplayRequest:
    near = sorted(neighbours, key=lambda n: -n[1])
    return ReplayRequest(prompt, seed, N, [Neighbour(i, similarity) for i, similarity in near])


def test_nothing_alike_saves_nothing() -> None:
    assert replay([request("a"), request("b", (0, 0.6))], ReplayOptions(LCBFU(), LEVELS)).skipped == 0


def test_a_similar_request_skips_what_its_level_allows() -> None:
    outcome = replay([request("a"), request("b", (0, 0.7)), request("c", (0, 0.95))], ReplayOptions(LCBFU(), LEVELS))
    assert outcome == ReplayOutcome(requests=3, approximate=2, steps=3 * N, skipped=2 + 4)


def test_the_same_request_again_runs_nothing() -> None:
    outcome = replay([request("a"), request("a", (0, 1.0))], ReplayOptions(LCBFU(), LEVELS))
    assert outcome == ReplayOutcome(requests=2, exact=1, steps=2 * N, skipped=N)


def test_another_seed_of_the_same_prompt_is_capped() -> None:
    outcome = replay([request("a"), request("a", (0, 1.0), seed=1)], ReplayOptions(LCBFU(), LEVELS))
    assert outcome == ReplayOutcome(requests=2, approximate=1, steps=2 * N, skipped=2)


def test_without_levels_only_exact_repeats_are_hits() -> None:
    stream = [request("a"), request("b", (0, 0.99)), request("a", (0, 1.0), (1, 0.99))]
    outcome = replay(stream, ReplayOptions(LCBFU(), Levels()))
    assert (outcome.exact, outcome.approximate, outcome.skipped) == (1, 0, N)


def test_a_cache_without_room_saves_nothing() -> None:
    assert replay([request("a"), request("a", (0, 1.0))], ReplayOptions(LRU(), LEVELS, entries=0)).skipped == 0


@pytest.mark.parametrize(
    ("policy", "survivor"),
    [(LRU(), "a"), (LFU(), "a"), (FIFO(), "b"), (LCBFU(), "a")],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_each_policy_gives_up_its_own(policy: object, survivor: str) -> None:
    """a and b are kept, a is used again, then c needs a place; who is left answers its repeat exactly."""
    stream = [request("a"), request("b"), request("a", (0, 1.0)), request("c"), request(survivor)]
    options = ReplayOptions(POLICIES[type(policy).__name__], LEVELS, entries=2)
    assert replay(stream, options).exact == 2
    other = "b" if survivor == "a" else "a"
    assert replay([*stream[:-1], request(other)], options).exact == 1


def test_a_full_cache_refuses_what_its_parent_covers() -> None:
    stream = [request("a"), request("b"), request("c", (0, 0.95)), request("c", (2, 1.0), (0, 0.95))]
    refusing = replay(stream, ReplayOptions(LCBFU(), LEVELS, entries=2))
    keeping = replay(stream, ReplayOptions(LCBFU(), LEVELS, entries=2, admission=False))
    assert (refusing.refused, refusing.evicted, refusing.exact) == (2, 0, 0)
    assert (keeping.refused, keeping.evicted, keeping.exact) == (0, 1, 1)


def test_more_neighbours_than_a_search_returns() -> None:
    """Many equally similar entries: the search may stop at its limit, for none of the unseen can offer more."""
    stream = [request(f"p{i}") for i in range(80)]
    outcome = replay([*stream, request("new", *((i, 0.95) for i in range(80)))], ReplayOptions(LCBFU(), LEVELS))
    assert (outcome.skipped, outcome.inconclusive) == (4, 0)


def test_an_empty_stream() -> None:
    outcome = replay([], ReplayOptions(LCBFU(), LEVELS))
    assert (outcome.steps_saved_ratio, outcome.hit_ratio) == (0.0, 0.0)


@st.composite
def streams(draw: st.DrawFn) -> list[ReplayRequest]:
    """Prompts of a few topics; equal prompts are equal, prompts of one topic similar."""
    topics = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 1)), max_size=30))
    alike = draw(st.sampled_from([0.7, 0.95]))
    stream: list[ReplayRequest] = []
    for i, (topic, wording, seed) in enumerate(topics):
        near = [(j, 1.0 if other[1] == wording else alike) for j, other in enumerate(topics[:i]) if other[0] == topic]
        stream.append(request(f"{topic}.{wording}", *near, seed=seed))
    return stream


@given(streams(), st.sampled_from(sorted(POLICIES)), st.integers(1, 8), st.booleans())
def test_counts_add_up_at_every_size(stream: list[ReplayRequest], policy: str, entries: int, admission: bool) -> None:
    outcome = replay(stream, ReplayOptions(POLICIES[policy], LEVELS, entries, admission))
    assert outcome.requests == len(stream)
    assert outcome.steps == N * len(stream)
    assert N * outcome.exact <= outcome.skipped <= N * outcome.exact + 4 * outcome.approximate
    stored = outcome.requests - outcome.exact - outcome.refused
    assert 0 <= stored - outcome.evicted <= entries


@given(streams(), st.sampled_from(sorted(POLICIES)))
def test_a_cache_that_holds_everything_is_the_unbounded_one(stream: list[ReplayRequest], policy: str) -> None:
    unbounded = replay(stream, ReplayOptions(POLICIES[policy], LEVELS))
    assert unbounded == replay(stream, ReplayOptions(POLICIES[policy], LEVELS, entries=len(stream)))
    assert unbounded.evicted == unbounded.refused == 0
