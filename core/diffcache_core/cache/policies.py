"""Which state the cache gives up first: the one with the lowest score. Pure.

A policy is a score, not a container: the ledger keeps states ordered by it and evicts the lowest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol


@dataclass(frozen=True)
class StateUse:
    """What a score may look at. `now`-like fields count hits and insertions, not seconds."""

    bytes: int  # allocated
    k: int  # steps a hit saves at most: k of a Trajectory state, N of a Clean one
    benefit: float  # steps; decayed credit, see LCBFU
    uses: int = 0
    created: int = 0  # ledger clock at insertion
    touched: int = 0  # ledger clock at insertion or the last hit
    age: float = 0.0  # the cache's age L at insertion or the last hit


class Policy(Protocol):
    def score(self, use: StateUse) -> float:
        """The state with the lowest score is evicted first. Called when a state is inserted or hit."""


class LCBFU:
    """Least Computationally Beneficial and Frequently Used: H = L + b / bytes.

    `b` is the decayed number of steps that nothing but this state has saved; L, the score of the last evicted state,
    ages whatever is not hit (GreedyDual: Cao & Irani, USITS 1997). Size matters because the budget is bytes.
    """

    def score(self, use: StateUse) -> float:
        return use.age + use.benefit / use.bytes


class LCBFUClassic:
    """Nirvana's LCBFU as published (arXiv 2312.04429): uses times k. It loses to LRU on the real log."""

    def score(self, use: StateUse) -> float:
        return float((use.uses + 1) * use.k)


class LRU:
    """Least recently used."""

    def score(self, use: StateUse) -> float:
        return float(use.touched)


class LFU:
    """Least frequently used."""

    def score(self, use: StateUse) -> float:
        return float(use.uses)


class FIFO:
    """First in, first out."""

    def score(self, use: StateUse) -> float:
        return float(use.created)


POLICIES: dict[str, Policy] = {p.__class__.__name__: p for p in (LCBFU(), LCBFUClassic(), LRU(), LFU(), FIFO())}

CREDIT_DECAY = 0.9
"""Share of the benefit that survives a hit. Lower forgets old hits faster; on the replay .8 to 1 differ by < .005."""

SHARED_CREDIT = 0.2
"""Of k, credited even when another state would have served as well: keeps one of two equal states alive."""

PRIOR_CREDITS = 2.0
"""A new state starts with this many mean credits. Higher favours the new (good for small caches), lower the proven."""

FIRST_PRIOR_STEPS = 1.0
"""The mean credit assumed before the first hit, in steps: any positive value makes all first states equal."""


def credit_of_hit(k: int, k_without: int) -> float:
    """Steps that a hit at `k` saved thanks to this state: max(k - k_without, 0.2 k)."""
    return max(float(k - k_without), SHARED_CREDIT * k)


def touch(use: StateUse, credit: float, clock: int, age: float) -> StateUse:
    """`use` after a hit worth `credit` steps: b = 0.9 b + credit, standing at the current age."""
    return replace(use, benefit=CREDIT_DECAY * use.benefit + credit, uses=use.uses + 1, touched=clock, age=age)


@dataclass(frozen=True)
class HitStatistics:
    """Of all hits so far: what a new state is given as its prior."""

    hits: int = 0
    credits: float = 0.0  # steps, summed

    @property
    def mean_credit(self) -> float:
        return self.credits / self.hits if self.hits else FIRST_PRIOR_STEPS


@dataclass(frozen=True)
class PolicyRecord:
    """What the policy remembers beside the states themselves."""

    age: float = 0.0  # L: the highest score evicted so far
    statistics: HitStatistics = HitStatistics()
    grants: Mapping[int, int] = field(default_factory=dict)  # how often each k has been granted


def prior_benefit(statistics: HitStatistics) -> float:
    """The benefit, in steps, that a new state starts with."""
    return PRIOR_CREDITS * statistics.mean_credit


def trajectory_weights(ks: tuple[int, ...], grants: dict[int, int]) -> dict[int, float]:
    """Factors on the prior of the states of one run, with mean 1: (k - k_prev) * share(k) over its mean.

    Args:
        ks: the steps at which the run left states, rising.
        grants: how often each k has been granted so far. Each k counts one grant more, so that none starts at zero.
    """
    total = sum(grants.get(k, 0) + 1 for k in ks)
    raw = {k: (k - previous) * (grants.get(k, 0) + 1) / total for previous, k in zip((0, *ks), ks, strict=False)}
    mean = sum(raw.values()) / len(raw) if raw else 1.0
    return {k: value / mean for k, value in raw.items()}


def admits(*, is_full: bool, granted_skip: int, top_skip: int) -> bool:
    """Whether a result is worth keeping: when full, one that was granted the top level is covered by its parent."""
    return not (is_full and top_skip > 0 and granted_skip >= top_skip)
