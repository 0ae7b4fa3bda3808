"""Which state a request resumes from: examples, and against brute force over all entries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcache_core.cache.resume import (
    Candidate,
    Level,
    Levels,
    Limits,
    checkpoints,
    choose_resume,
    skip_to_k,
    usable_k,
)
from diffcache_core.cache.states import StateKind, StateRecord

CLEAN, TRAJECTORY = StateKind.CLEAN, StateKind.TRAJECTORY
LEVELS = Levels((Level(25, 0.65), Level(38, 0.8), Level(63, 0.9)), reseed_skip_percent=25)


def state(name: str, kind: StateKind = CLEAN, k: int = 0) -> StateRecord:
    return StateRecord(name, f"entry-{name}", kind, k, 4096, "")


def candidate(name: str, similarity: float, *states: StateRecord, **more: object) -> Candidate:
    return Candidate(f"entry-{name}", similarity, states or (state(name),), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("skip", "steps", "k"), [(25, 8, 2), (38, 8, 3), (37, 8, 2), (50, 5, 2), (10, 8, 0), (99, 1, 0), (99, 1000, 990)]
)
def test_a_share_becomes_a_step_by_floor(skip: int, steps: int, k: int) -> None:
    assert skip_to_k(skip, steps) == k


def test_levels_are_inclusive_and_rise() -> None:
    assert [LEVELS.skip_at(s) for s in (0.649, 0.65, 0.799, 0.8, 0.9, 1.0)] == [0, 25, 25, 38, 63, 63]
    assert LEVELS.top_skip == 63
    assert Levels().skip_at(1.0) == 0


@pytest.mark.parametrize("table", [(Level(25, 0.8), Level(38, 0.7)), (Level(25, 0.7), Level(25, 0.8))])
def test_levels_that_fall_or_repeat_are_refused(table: tuple[Level, ...]) -> None:
    with pytest.raises(ValueError, match="levels: skipping"):
        Levels(table)


def test_checkpoints_drop_what_rounds_to_nothing() -> None:
    assert checkpoints(LEVELS, 8) == (2, 3, 5)
    assert checkpoints(LEVELS, 5) == (1, 3)
    assert checkpoints(LEVELS, 1) == ()


def test_a_clean_state_serves_any_k_and_a_trajectory_state_its_own() -> None:
    assert usable_k(state("c"), 5) == 5
    assert [usable_k(state("t", TRAJECTORY, 3), k) for k in (2, 3, 5)] == [0, 3, 3]


def test_the_largest_k_wins_then_similarity_then_depth() -> None:
    near, far = candidate("near", 0.85), candidate("far", 0.81)
    decision = choose_resume([near, far], LEVELS, Limits(8, CLEAN), unseen=None)
    assert [(c.state.id, c.k, c.k_without) for c in decision.choices] == [("near", 3, 3), ("far", 3, 0)]
    deep, shallow = candidate("deep", 0.85, depth=3), candidate("shallow", 0.85, depth=1)
    assert choose_resume([deep, shallow], LEVELS, Limits(8, CLEAN), unseen=None).choices[0].state.id == "shallow"


def test_a_hole_is_passed_over_for_a_less_similar_entry_that_can_serve_more() -> None:
    hole = candidate("hole", 0.95, state("hole", TRAJECTORY, 2))
    whole = candidate("whole", 0.81, state("whole", TRAJECTORY, 3))
    decision = choose_resume([hole, whole], LEVELS, Limits(8, TRAJECTORY), unseen=None)
    assert [(c.state.id, c.k, c.k_without) for c in decision.choices] == [("whole", 3, 2), ("hole", 2, 0)]


def test_states_of_the_other_kind_do_not_serve() -> None:
    both = candidate("x", 0.95, state("final", CLEAN), state("at2", TRAJECTORY, 2))
    assert choose_resume([both], LEVELS, Limits(8, TRAJECTORY), unseen=None).choices[0].state.id == "at2"
    assert choose_resume([both], LEVELS, Limits(8, CLEAN), unseen=None).choices[0].state.id == "final"


def test_another_seed_of_the_same_prompt_is_capped_and_the_same_seed_is_not() -> None:
    def best(same_seed: bool) -> int:
        same = candidate("s", 1.0, same_prompt=True, same_seed=same_seed)
        return choose_resume([same], LEVELS, Limits(8, CLEAN), unseen=None).choices[0].k

    assert best(same_seed=False) == skip_to_k(25, 8)
    assert best(same_seed=True) == skip_to_k(63, 8)


def test_callers_only_tighten() -> None:
    near = [candidate("n", 0.85)]
    assert choose_resume(near, LEVELS, Limits(8, CLEAN, min_similarity=0.86), unseen=None).choices == ()
    assert choose_resume(near, LEVELS, Limits(8, CLEAN, max_skip=30), unseen=None).choices[0].k == 2
    assert choose_resume(near, LEVELS, Limits(8, CLEAN, min_similarity=-1, max_skip=100), unseen=None).choices[0].k == 3


def test_the_search_widens_only_when_an_unseen_entry_could_offer_more() -> None:
    holes = [candidate(f"h{i}", 0.95 - i / 100, state(f"h{i}", TRAJECTORY, 7)) for i in range(4)]
    assert not choose_resume(holes, LEVELS, Limits(8, TRAJECTORY), unseen=0.92).conclusive
    assert choose_resume(holes, LEVELS, Limits(8, TRAJECTORY), unseen=None).conclusive
    enough = [*holes, candidate("low", 0.7, state("low", TRAJECTORY, 2))]
    assert choose_resume(enough, LEVELS, Limits(8, TRAJECTORY), unseen=0.7).conclusive


def test_nothing_usable_is_conclusive_only_when_nothing_is_unseen() -> None:
    assert choose_resume([], LEVELS, Limits(8, CLEAN), unseen=None).conclusive
    assert choose_resume([], LEVELS, Limits(8, CLEAN), unseen=0.6).conclusive
    assert not choose_resume([], LEVELS, Limits(8, CLEAN), unseen=0.7).conclusive


def test_another_state_of_the_same_entry_would_have_served_too() -> None:
    both = candidate("x", 0.95, state("at3", TRAJECTORY, 3), state("at5", TRAJECTORY, 5))
    decision = choose_resume([both], LEVELS, Limits(8, TRAJECTORY), unseen=None)
    assert [(c.state.id, c.k, c.k_without) for c in decision.choices] == [("at5", 5, 3), ("at3", 3, 0)]


# ---- against brute force ---------------------------------------------------------------------------------------------


@st.composite
def level_tables(draw: st.DrawFn) -> Levels:
    skips = sorted(draw(st.sets(st.integers(1, 99), max_size=6)))
    thresholds = sorted(draw(st.lists(st.floats(0, 1), min_size=len(skips), max_size=len(skips))))
    return Levels(tuple(map(Level, skips, thresholds)), draw(st.integers(0, 99)))


@st.composite
def entries(draw: st.DrawFn) -> list[Candidate]:
    found = []
    for i in range(draw(st.integers(0, 12))):
        ks = draw(st.lists(st.integers(0, 20), max_size=4))
        states = tuple(
            StateRecord(f"{i}-{j}", f"e{i}", TRAJECTORY if k else CLEAN, k, 4096, "") for j, k in enumerate(ks)
        )
        found.append(
            Candidate(
                f"e{i}",
                draw(st.floats(-1, 1)),
                states,
                draw(st.booleans()),
                draw(st.booleans()),
                draw(st.integers(0, 5)),
            )
        )
    return sorted(found, key=lambda c: -c.similarity)


limits = st.builds(Limits, st.integers(1, 20), st.sampled_from(StateKind), st.floats(-1, 1), st.integers(0, 100))


def brute_force(all_entries: list[Candidate], levels: Levels, limits: Limits) -> dict[str, int]:
    """The k of every state that may serve, written out from the definitions."""
    ks = {}
    for entry in all_entries:
        skip = 0
        for level in levels.table:
            if entry.similarity >= level.similarity and entry.similarity >= limits.min_similarity:
                skip = max(skip, level.skip_percent)
        skip = min(skip, limits.max_skip)
        if limits.kind is CLEAN and entry.same_prompt and not entry.same_seed:
            skip = min(skip, levels.reseed_skip_percent)
        allowed = skip * limits.steps // 100
        for s in entry.states:
            k = allowed if s.kind is CLEAN else (s.k if s.k <= allowed else 0)
            if s.kind is limits.kind and k >= 1:
                ks[s.id] = k
    return ks


@given(entries(), level_tables(), limits)
def test_the_best_of_all_entries_is_found(all_entries: list[Candidate], levels: Levels, limits: Limits) -> None:
    ks = brute_force(all_entries, levels, limits)
    decision = choose_resume(all_entries, levels, limits, unseen=None)
    assert decision.conclusive
    assert (decision.choices[0].k if decision.choices else 0) == max(ks.values(), default=0)
    for choice in decision.choices:
        assert choice.k == ks[choice.state.id]
    if decision.choices:
        best = decision.choices[0]
        others = [k for i, k in ks.items() if i != best.state.id]
        assert best.k_without == max(others, default=0)


@given(entries(), level_tables(), limits, st.integers(1, 12))
def test_a_conclusive_look_at_the_nearest_loses_nothing(
    all_entries: list[Candidate], levels: Levels, limits: Limits, seen: int
) -> None:
    """The stop rule, except for the seed cap's own effect: a capped nearest entry may hide nothing but itself."""
    nearest = all_entries[:seen]
    decision = choose_resume(nearest, levels, limits, unseen=nearest[-1].similarity if len(nearest) == seen else None)
    if decision.conclusive:
        best = decision.choices[0].k if decision.choices else 0
        assert best >= max(brute_force(all_entries, levels, limits).values(), default=0)
