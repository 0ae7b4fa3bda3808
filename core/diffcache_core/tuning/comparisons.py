"""Chooses which requests are compared with a run without the cache, at which skip, within a budget of steps. Pure.

Only a hash of its id decides whether a request is due, before its result or the load is known. A comparison counts for
a skip percentage of the level table and a bin of similarity, independent of the levels in force.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from diffcache_core.cache.resume import Levels, skip_to_k

HEADROOM = 0.9
"""Share of the budget that is used on average. Nearer to 1, several costly requests in a row empty the budget more
often, and costly ones are then refused, which is a bias; with a lower value fewer comparisons are made than the budget
allows."""

BURST_STEPS = 4000.0
"""Steps that may be saved up at most: two comparisons of the longest possible request. With more, comparisons of a busy
hour may all come at once later; with less, the longest requests are never compared."""

WORST_COST = 2.0
"""Highest cost of a comparison, as a multiple of the request's steps: one run from noise and one resumed."""

PRIOR_RUNS, REMEMBERED_RUNS = 3, 200
"""The mean cost starts as if PRIOR_RUNS runs had had the worst cost, and then follows the last REMEMBERED_RUNS. With
more of either, a new process, or one whose traffic has changed, stays below its budget for longer (with 10 prior runs
half of the budget was unused after 2500 requests, measured); with fewer, the share of due requests varies by chance."""

LOWEST_COST = 0.1
"""Lowest mean cost from which the share is computed: if hardly any request has something to compare, at most ten times
the percentage of them are due."""

REACH = 0.15
"""How far below its threshold a level is tried, in similarity: three bins. The tuner moves by one bin at a time, so
prompts further away will not get that level soon; a wider reach spends the budget on them."""

ALLOWED_SHARE = 0.25
"""Share of the requests that were allowed a resume but not served one, that are tried at the allowed skip; the others
are tried at the next larger one. Served hits measure the allowed skip anyway."""


def fraction_of(request_id: str, purpose: str) -> float:
    """Returns a number in [0, 1), uniform over ids and always the same for one id; independent for each purpose."""
    digest = hashlib.sha256(f"{purpose}:{request_id}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def is_due(request_id: str, share: float) -> bool:
    """Returns whether this request belongs to the `share` (0 to 1) that is compared. A request that is due at one share
    is due at every larger one."""
    return fraction_of(request_id, "due") < share


@dataclass
class StepBudget:
    """The steps that comparisons may still take, in steps at the model's own size. Over any time they take at most a
    percentage of the steps asked for."""

    balance: float = 0.0  # never below 0

    def earn(self, steps: float, percent: int) -> None:
        """Adds `percent` percent of the `steps` of an answered request."""
        self.balance = min(BURST_STEPS, self.balance + steps * percent / 100)

    def covers(self, steps: float) -> bool:
        return self.balance >= steps

    def take(self, steps: float) -> bool:
        """Takes steps from the budget. Returns False, and takes none, if there are not enough."""
        if not self.covers(steps):
            return False
        self.balance -= steps
        return True

    def give_back(self, steps: float) -> None:
        """Returns steps that were taken and did not run to the budget."""
        self.balance = min(BURST_STEPS, self.balance + steps)


@dataclass
class MeanCost:
    """Mean steps of a due request's comparison, as a multiple of the request's steps, over the last ones."""

    mean: float = WORST_COST
    count: int = PRIOR_RUNS

    def add(self, cost: float) -> None:
        self.count = min(self.count + 1, REMEMBERED_RUNS)
        self.mean += (cost - self.mean) / self.count

    def share(self, percent: int) -> float:
        """Returns the share of requests (0 to 1) whose comparisons take HEADROOM times `percent` of all steps."""
        return min(1.0, HEADROOM * percent / 100 / max(LOWEST_COST, self.mean))


def granted_percent(levels: Levels, k: int, steps: int, granted: int) -> int | None:
    """Returns the level for which a resume at step `k` of `steps` is evidence: the table's largest skip percentage up
    to `granted` that gives this k. None if a caller's limit led to a k between two levels."""
    return max((p for p in _percents(levels) if p <= granted and skip_to_k(p, steps) == k), default=None)


def percent_to_try(levels: Levels, similarity: float, steps: int, *, cap: int, allowed_too: bool) -> int | None:
    """Returns the skip percentage at which to try a neighbour of this similarity; None if there is nothing to learn.

    Args:
        levels: the levels in force.
        steps: N of the request.
        cap: larger percentages are never served to this pair (the limit between seeds of one prompt).
        allowed_too: try the skip that is already allowed, if there is one, instead of the next larger one.
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
    """Returns what one pair adds to the sums, by the names in names.MOMENTS. Qualities are cosines, clipped to 0..1."""
    c, u = (min(1.0, max(0.0, q)) for q in (cached, uncached))
    return {"c": c, "u": u, "cc": c * c, "uu": u * u, "cu": c * u}


def _percents(levels: Levels) -> list[int]:
    return [level.skip_percent for level in levels.table]
