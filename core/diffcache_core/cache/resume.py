"""Chooses the cached state from which a request resumes, and the step. Pure.

A *level* says how much may be skipped from which similarity on; `choose_resume` applies the table to the nearest
entries and takes the largest k that any of their states can serve.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from diffcache_core.cache.states import StateKind, StateRecord


@dataclass(frozen=True, order=True)
class Level:
    """A level: from this cosine similarity on (inclusive), this percentage of the N steps may be skipped."""

    skip_percent: int
    similarity: float


@dataclass(frozen=True)
class Levels:
    """The table of levels of one model and one embedder. Raises ValueError if a larger skip has a lower similarity, or
    a percentage appears twice.

    `reseed_skip_percent` limits the skip for the *same* prompt with another seed: beyond it pictures of different seeds
    look alike (measured by `diffcache calibrate`). A lower value keeps them more different and saves less.
    """

    table: tuple[Level, ...] = ()
    reseed_skip_percent: int = 0

    def __post_init__(self) -> None:
        rising = sorted(self.table)
        for lower, higher in itertools.pairwise(rising):
            if lower.skip_percent == higher.skip_percent or lower.similarity > higher.similarity:
                raise ValueError(
                    f"levels: skipping {higher.skip_percent}% must ask for at least the similarity of skipping "
                    f"{lower.skip_percent}%, and each percentage may appear once"
                )
        object.__setattr__(self, "table", tuple(rising))

    def skip_at(self, similarity: float) -> int:
        """Returns the largest skip in percent that `similarity` allows; 0 below the lowest level."""
        return max((level.skip_percent for level in self.table if similarity >= level.similarity), default=0)

    @property
    def top_skip(self) -> int:
        """The largest skip in percent that any request can get: a level above similarity 1 is closed."""
        return self.skip_at(1.0)

    @property
    def floor(self) -> float:
        """The similarity below which nothing is ever resumed."""
        return self.table[0].similarity if self.table else float("inf")


def skip_to_k(skip_percent: int, steps: int) -> int:
    """Returns floor(skip * N / 100). Saving and looking up both use it to turn a percentage into a step."""
    return skip_percent * steps // 100


def checkpoints(levels: Levels, steps: int) -> tuple[int, ...]:
    """Returns the steps k >= 1 at which a run of N `steps` leaves `Trajectory` states, in rising order."""
    return tuple(sorted({k for level in levels.table if (k := skip_to_k(level.skip_percent, steps)) >= 1}))


def usable_k(state: StateRecord, allowed_k: int) -> int:
    """Returns the step at which `state` can serve a request that may skip `allowed_k` steps; 0 if it cannot."""
    if state.kind is StateKind.CLEAN:
        return allowed_k
    return state.k if state.k <= allowed_k else 0


@dataclass(frozen=True)
class Limits:
    """The limits that one request sets."""

    steps: int
    kind: StateKind  # which kind of state the cache resumes from
    min_similarity: float = -1.0
    max_skip: int = 100  # percent

    def allowed_k(self, levels: Levels, similarity: float, *, same_prompt: bool) -> int:
        """Returns the largest k that the levels, the request and `reseed_skip_percent` allow at this similarity."""
        if similarity < self.min_similarity:
            return 0
        skip = min(levels.skip_at(similarity), self.max_skip)
        if same_prompt and self.kind is StateKind.CLEAN:
            skip = min(skip, levels.reseed_skip_percent)
        return skip_to_k(skip, self.steps)


@dataclass(frozen=True)
class Candidate:
    """An entry whose key is near to the request's."""

    entry_id: str
    similarity: float
    states: tuple[StateRecord, ...]
    same_prompt: bool = False  # the same token ids, so only the seed differs
    same_seed: bool = False
    depth: int = 0


@dataclass(frozen=True)
class Choice:
    """A resume from this state at step `k`. `own_run`: the entry has the same prompt and seed, so it is the same
    run."""

    state: StateRecord
    similarity: float
    depth: int  # of the state's entry
    k: int
    k_without: int  # the k that the request would get if this state did not exist
    own_run: bool


@dataclass(frozen=True)
class Decision:
    """The possible resumes, best first. The later ones are used if the bytes of the earlier ones are missing.

    `conclusive` is False if an entry that the search did not return could allow a larger k. Then the caller must search
    more widely, or count the loss.
    """

    choices: tuple[Choice, ...]
    conclusive: bool


def choose_resume(candidates: Sequence[Candidate], levels: Levels, limits: Limits, *, unseen: float | None) -> Decision:
    """Chooses the largest allowed k of any candidate; among equal k the most similar one, then the one of least depth.

    Args:
        candidates: entries by falling similarity, as the index returns them.
        levels: the threshold table in force.
        limits: what the request allows.
        unseen: the highest possible similarity of entries that the index did not return, which is that of the last row
            it returned; None if it returned all entries.

    Nothing is lost by stopping if the best k found is at least the k that `unseen` would allow.
    """
    found: list[tuple[int, Candidate, StateRecord]] = []
    for candidate in candidates:
        allowed = limits.allowed_k(levels, candidate.similarity, same_prompt=_capped(candidate))
        found += [(k, candidate, state) for k, state in _usable(candidate.states, limits.kind, allowed)]
    found.sort(key=lambda f: (-f[0], -f[1].similarity, f[1].depth, f[2].id))
    others = [k for k, _, _ in found[1:]] + [0]
    choices = tuple(
        Choice(state, c.similarity, c.depth, k, k_without, own_run=c.same_prompt and c.same_seed)
        for (k, c, state), k_without in zip(found, others, strict=False)
    )
    best_k = choices[0].k if choices else 0
    unseen_k = 0 if unseen is None else limits.allowed_k(levels, unseen, same_prompt=False)
    return Decision(choices, conclusive=best_k >= unseen_k)


def _capped(candidate: Candidate) -> bool:
    """Returns whether the reseed limit applies: only a *different* seed of the same prompt may look too much alike."""
    return candidate.same_prompt and not candidate.same_seed


def _usable(states: Iterable[StateRecord], kind: StateKind, allowed: int) -> Iterable[tuple[int, StateRecord]]:
    for state in states:
        if state.kind is kind and (k := usable_k(state, allowed)) >= 1:
            yield k, state
