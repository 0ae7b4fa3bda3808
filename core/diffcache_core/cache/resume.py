"""Which cached state a request resumes from, and at which step. Pure.

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
    """From this cosine similarity on (inclusive), so many percent of N may be skipped."""

    skip_percent: int
    similarity: float


@dataclass(frozen=True)
class Levels:
    """The threshold table of one model and one embedder.

    `reseed_skip_percent` caps the skip for the *same* prompt under another seed: beyond it pictures of different
    seeds look alike (measured by `diffcache calibrate`). Lower keeps seeds further apart and saves less.
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
        """The largest skip in percent that `similarity` allows; 0 below the lowest level."""
        return max((level.skip_percent for level in self.table if similarity >= level.similarity), default=0)

    @property
    def top_skip(self) -> int:
        """The most that any request is granted: a level above the similarity 1 is closed."""
        return self.skip_at(1.0)

    @property
    def floor(self) -> float:
        """The similarity below which nothing is ever resumed."""
        return self.table[0].similarity if self.table else float("inf")


def skip_to_k(skip_percent: int, steps: int) -> int:
    """floor(skip * N / 100): the one place where a share becomes a step, for saving and for looking up."""
    return skip_percent * steps // 100


def checkpoints(levels: Levels, steps: int) -> tuple[int, ...]:
    """The steps k at which a run of N `steps` leaves `Trajectory` states, rising; k < 1 is dropped."""
    return tuple(sorted({k for level in levels.table if (k := skip_to_k(level.skip_percent, steps)) >= 1}))


def usable_k(state: StateRecord, allowed_k: int) -> int:
    """The step at which `state` can serve a request that may skip `allowed_k` steps; 0 = not at all."""
    if state.kind is StateKind.CLEAN:
        return allowed_k
    return state.k if state.k <= allowed_k else 0


@dataclass(frozen=True)
class Limits:
    """What one request allows."""

    steps: int
    kind: StateKind  # which kind of state the cache resumes from
    min_similarity: float = -1.0
    max_skip: int = 100  # percent

    def allowed_k(self, levels: Levels, similarity: float, *, same_prompt: bool) -> int:
        """The largest k that levels, request and the seed cap allow at this similarity."""
        if similarity < self.min_similarity:
            return 0
        skip = min(levels.skip_at(similarity), self.max_skip)
        if same_prompt and self.kind is StateKind.CLEAN:
            skip = min(skip, levels.reseed_skip_percent)
        return skip_to_k(skip, self.steps)


@dataclass(frozen=True)
class Candidate:
    """An entry near the request."""

    entry_id: str
    similarity: float
    states: tuple[StateRecord, ...]
    same_prompt: bool = False  # the same token ids, so only the seed differs
    same_seed: bool = False
    depth: int = 0


@dataclass(frozen=True)
class Choice:
    """Resume from this state at step `k`. `own_run`: prompt and seed are the parent's, so it is the same run."""

    state: StateRecord
    similarity: float
    depth: int  # of the state's entry
    k: int
    k_without: int  # the k that the request would get if this state did not exist
    own_run: bool


@dataclass(frozen=True)
class Decision:
    """`choices`, best first: the later ones are for when the bytes of an earlier one turn out to be gone.

    `conclusive` is False when an entry that the search did not return could still offer a larger k: then the search
    has to widen, or the loss has to be counted.
    """

    choices: tuple[Choice, ...]
    conclusive: bool


def choose_resume(candidates: Sequence[Candidate], levels: Levels, limits: Limits, *, unseen: float | None) -> Decision:
    """The largest allowed k of any candidate; among equals the most similar, then the least deep.

    Args:
        candidates: entries by falling similarity, as the index returned them.
        levels: the threshold table in force.
        limits: what the request allows.
        unseen: the similarity that unseen neighbours have at most, which is that of the last row the index returned;
            None when it returned all it has.

    The stop rule: nothing is lost by stopping when the best k found is at least what `unseen` would allow.
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
    """Only a *different* seed of the same prompt is in danger of looking alike."""
    return candidate.same_prompt and not candidate.same_seed


def _usable(states: Iterable[StateRecord], kind: StateKind, allowed: int) -> Iterable[tuple[int, StateRecord]]:
    for state in states:
        if state.kind is kind and (k := usable_k(state, allowed)) >= 1:
            yield k, state
