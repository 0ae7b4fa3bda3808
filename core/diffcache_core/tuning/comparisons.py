"""Which requests are compared with a run without the cache, at which skip, and within which budget of steps. Pure.

A request is due by a hash of its id alone, before anything is known of its result or of the load. What is compared
counts under a skip percentage of the level table and a bin of similarity, whatever levels are in force.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from diffcache_core.cache.resume import Levels, skip_to_k

HEADROOM = 0.9
"""Share of the budget that is aimed at. Nearer to 1, a run of costly requests meets an empty budget more often, and
those are then refused by their cost; lower leaves comparisons unmade that were paid for."""

BURST_STEPS = 4000.0
"""The most that may be saved up, steps: two comparisons of the longest request there is. More lets a busy hour's
comparisons come at once later; less never compares the longest requests."""

WORST_COST = 2.0
"""No comparison takes more steps than twice the request's: one run from noise and one resumed."""

PRIOR_RUNS, REMEMBERED_RUNS = 3, 200
"""The mean cost starts as if so many runs had cost the worst, and follows the last so many. More of either leaves a
young process, or one whose traffic has changed, below its budget for longer (with 10 half of it lay idle after 2500
requests, measured); fewer let chance move the share of requests that are due."""

LOWEST_COST = 0.1
"""Mean cost that the share reckons with at least: where nearly no request has anything to compare, ten times the
percentage of them are looked at and no more."""

REACH = 0.15
"""How far below a level's threshold it is tried, in similarity: three bins. The tuner moves one at a time, and prompts
further off will not be granted that level; wider spends the budget on them."""

ALLOWED_SHARE = 0.25
"""Of requests that were not served a resume although one was allowed: how many are tried at what was allowed, the
others at the next looser skip. Served hits measure the former anyway."""


def fraction_of(request_id: str, purpose: str) -> float:
    """In [0, 1), uniform over ids, always the same for one id; independent for each purpose."""
    digest = hashlib.sha256(f"{purpose}:{request_id}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def is_due(request_id: str, share: float) -> bool:
    """Whether this request is one of the `share` that are compared; who is due at a share is due at any larger one."""
    return fraction_of(request_id, "due") < share


@dataclass
class StepBudget:
    """At most so many percent of the steps asked, over any time: the steps that comparisons may still take, in steps at
    the model's own size."""

    balance: float = 0.0  # never below 0

    def earn(self, steps: float, percent: int) -> None:
        """A request of so many steps was answered."""
        self.balance = min(BURST_STEPS, self.balance + steps * percent / 100)

    def covers(self, steps: float) -> bool:
        return self.balance >= steps

    def take(self, steps: float) -> bool:
        """Sets so many steps aside; False, and nothing is, when there are not enough."""
        if not self.covers(steps):
            return False
        self.balance -= steps
        return True

    def give_back(self, steps: float) -> None:
        """Steps that were set aside and did not run."""
        self.balance = min(BURST_STEPS, self.balance + steps)


@dataclass
class MeanCost:
    """Steps that a due request's comparison takes, as a multiple of the request's own; over the last ones."""

    mean: float = WORST_COST
    count: int = PRIOR_RUNS

    def add(self, cost: float) -> None:
        self.count = min(self.count + 1, REMEMBERED_RUNS)
        self.mean += (cost - self.mean) / self.count

    def share(self, percent: int) -> float:
        """The share of requests whose comparisons take `percent` of all steps, less the headroom."""
        return min(1.0, HEADROOM * percent / 100 / max(LOWEST_COST, self.mean))


def granted_percent(levels: Levels, k: int, steps: int, granted: int) -> int | None:
    """The level that a resume at step `k` of `steps` is evidence for: the table's largest skip percentage up to
    `granted` that means this k; None when a caller's limit led between two levels."""
    return max((p for p in _percents(levels) if p <= granted and skip_to_k(p, steps) == k), default=None)


def percent_to_try(levels: Levels, similarity: float, steps: int, *, cap: int, allowed_too: bool) -> int | None:
    """The skip percentage at which to try a neighbour of this similarity; None when there is nothing to learn.

    Args:
        levels: those in force.
        steps: N of the request.
        cap: percentages above it are never served to this pair (the cap between seeds of one prompt).
        allowed_too: try what is allowed already, if that is anything, rather than the next looser skip.
    """
    allowed = min(levels.skip_at(similarity), cap)
    allowed_k = skip_to_k(allowed, steps)
    if allowed_too and allowed_k >= 1:
        return granted_percent(levels, allowed_k, steps, allowed)
    for level in levels.table:
        if level.skip_percent > allowed and skip_to_k(level.skip_percent, steps) > allowed_k:
            is_near = similarity >= level.similarity - REACH - 1e-9
            return level.skip_percent if is_near and level.skip_percent <= cap else None
    return None


def moments(cached: float, uncached: float) -> dict[str, float]:
    """What one pair adds to the sums, by the names in names.MOMENTS. Qualities are cosines, clipped to 0..1."""
    c, u = (min(1.0, max(0.0, q)) for q in (cached, uncached))
    return {"c": c, "u": u, "cc": c * c, "uu": u * u, "cu": c * u}


def _percents(levels: Levels) -> list[int]:
    return [level.skip_percent for level in levels.table]
