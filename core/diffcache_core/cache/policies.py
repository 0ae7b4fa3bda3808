"""Eviction policies: the cache evicts the state with the lowest score first. Pure.

A policy only computes a score. The ledger keeps the states ordered by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol


@dataclass(frozen=True)
class StateUse:
    """What a score may depend on. `created` and `touched` count hits and insertions, not seconds."""

    bytes: int  # allocated
    k: int  # steps that a hit saves at most: k of a Trajectory state, N of a Clean one
    benefit: float  # steps; decayed credit, see LCBFU
    uses: int = 0
    created: int = 0  # ledger clock at insertion
    touched: int = 0  # ledger clock at insertion or the last hit
    age: float = 0.0  # the cache's age L at insertion or the last hit


class Policy(Protocol):
    def score(self, use: StateUse) -> float:
        """Returns the score of a state. It is computed when the state is inserted or hit."""


class LCBFU:
    """Least Computationally Beneficial and Frequently Used: H = L + b / bytes.

    `b` is the decayed number of steps that only this state could have saved. L is the highest score evicted so far; it
    ages states that are not hit (GreedyDual: Cao & Irani, USITS 1997). The size counts because the budget is in bytes.
    """

    def score(self, use: StateUse) -> float:
        return use.age + use.benefit / use.bytes


class LCBFUClassic:
    """Nirvana's LCBFU as published (arXiv 2312.04429): uses times k. On the real log it does worse than LRU."""

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
"""Share of the benefit that remains after a hit. A lower value forgets old hits faster; on the replay .8 to 1 differ by
< .005."""

SHARED_CREDIT = 0.2
"""Share of k that a hit credits even if another state would have served as well: it keeps one of two equal states
alive."""

PRIOR_CREDITS = 2.0
"""A new state starts with this many mean credits. A higher value favours new states (good for small caches), a lower
one states with hits."""

FIRST_PRIOR_STEPS = 1.0
"""The mean credit assumed before the first hit, in steps: any positive value makes all first states equal."""


def credit_of_hit(k: int, k_without: int) -> float:
    """Returns the steps that a hit at `k` saved thanks to this state: max(k - k_without, 0.2 k)."""
    return max(float(k - k_without), SHARED_CREDIT * k)


def touch(use: StateUse, credit: float, clock: int, age: float) -> StateUse:
    """Returns `use` after a hit worth `credit` steps: b = 0.9 b + credit, at the current age L."""
    return replace(use, benefit=CREDIT_DECAY * use.benefit + credit, uses=use.uses + 1, touched=clock, age=age)


@dataclass(frozen=True)
class HitStatistics:
    """Counts over all hits so far; the prior of a new state comes from them."""

    hits: int = 0
    credits: float = 0.0  # steps, summed

    @property
    def mean_credit(self) -> float:
        return self.credits / self.hits if self.hits else FIRST_PRIOR_STEPS


@dataclass(frozen=True)
class PolicyRecord:
    """What the policy remembers besides the states."""

    age: float = 0.0  # L: the highest score evicted so far
    statistics: HitStatistics = HitStatistics()
    grants: Mapping[int, int] = field(default_factory=dict)  # how often each k has been granted


def prior_benefit(statistics: HitStatistics) -> float:
    """Returns the benefit, in steps, with which a new state starts."""
    return PRIOR_CREDITS * statistics.mean_credit


def trajectory_weights(ks: tuple[int, ...], grants: dict[int, int]) -> dict[int, float]:
    """Returns factors for the priors of the states of one run: (k - k_prev) * share(k), divided by its mean. Their mean
    is 1.

    Args:
        ks: the steps at which the run left states, in rising order.
        grants: how often each k has been granted so far. One is added to each, so that none starts at zero.
    """
    total = sum(grants.get(k, 0) + 1 for k in ks)
    raw = {k: (k - previous) * (grants.get(k, 0) + 1) / total for previous, k in zip((0, *ks), ks, strict=False)}
    mean = sum(raw.values()) / len(raw) if raw else 1.0
    return {k: value / mean for k, value in raw.items()}


def admits(*, is_full: bool, granted_skip: int, top_skip: int) -> bool:
    """Returns whether to keep a result. A full cache refuses a result that was granted the top level: its parent
    already serves the same requests."""
    return not (is_full and top_skip > 0 and granted_skip >= top_skip)
