"""What comparisons prove about a skip percentage at a similarity. Pure.

Each pair of qualities from 0 to 1 gives the value x = q_c - alpha q_u, from -alpha to 1; q_c is the quality with the
cache, q_u the one without, alpha the target. A skip is good where the mean of x is at least zero. One assumption is
made, as calibration shows (docs/calibration.md): quality does not fall if the parent is closer or less is skipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

from diffcache_core.names import SIMILARITY_BIN_WIDTH
from diffcache_core.tuning.confidence import Sums, log_wealth
from diffcache_core.tuning.values import Batch, PairSums

ERROR = 0.05
"""Chance that any level is ever loosened wrongly, split evenly over the levels. The pairs needed only grow with the
logarithm of its inverse."""
DOUBT = 0.05
"""Chance that one bin of a good level is ever refused. Such an error costs steps, not quality, and is corrected
later."""
FEW = 30
"""A bin with fewer pairs gets hardly any requests: it may be skipped on the way to a proven bin below it."""

BINS = round(1 / SIMILARITY_BIN_WIDTH)
CLOSED = 1.01
"""The similarity of a closed level: no similarity reaches it."""
EDGES = (*(round(index * SIMILARITY_BIN_WIDTH, 2) for index in range(BINS)), CLOSED)
"""Lower edges of the bins, and CLOSED above the last one."""


def bin_index(lower_edge: float) -> int:
    return round(lower_edge / SIMILARITY_BIN_WIDTH)


class Evidence:
    def __init__(self, batches: Sequence[Batch], skips: Sequence[int], target: float) -> None:
        """`skips`: skip percentages of all levels, rising. `target`: alpha, 0 to 1."""
        self.skips = tuple(skips)
        self.target = target
        self._parts: dict[tuple[int, int], list[PairSums]] = {}
        for batch in batches:
            for (skip, lower_edge), sums in batch.pairs.items():
                self._parts.setdefault((skip, bin_index(lower_edge)), []).append(sums)
        self._wealth: dict[tuple[int, int, bool], float] = {}

    @cached_property
    def pairs(self) -> float:
        return sum(part.n for parts in self._parts.values() for part in parts)

    def count(self, skip: int, index: int) -> float:
        return sum(part.n for part in self._parts.get((skip, index), ()))

    def ratio(self, skip: int, index: int) -> float | None:
        """Returns an estimate of the mean quality with the cache, divided by the mean without; None without pairs."""
        parts = self._parts.get((skip, index), ())
        uncached = sum(part.u for part in parts)
        return sum(part.c for part in parts) / uncached if uncached > 0 else None

    def proven(self, skip: int, index: int, passed: int) -> bool:
        """Returns whether skipping `skip` percent is proven to keep the target in this bin.

        `passed`: number of bins between this one and the level in force that were skipped. A level's first error
        happens at the highest wrong bin, or below it after that bin was skipped. Its chance of error is split over
        these cases by 1/(1*2) + 1/(2*3) + ... = 1. Bins are tested in a fixed order, so their number does not matter.
        """
        needed = self._enough + math.log((passed + 1) * (passed + 2) / 2)
        return self._log_wealth(skip, index, good=True) >= needed

    def disproven(self, skip: int, index: int) -> bool:
        """Returns whether it is proven that `skip` percent, or an even smaller skip, misses the target in this bin."""
        return any(
            self._log_wealth(other, index, good=False) >= -math.log(DOUBT) for other in self.skips if other <= skip
        )

    @property
    def _enough(self) -> float:
        return math.log(2 * len(self.skips) / ERROR)

    def _log_wealth(self, skip: int, index: int, *, good: bool) -> float:
        key = (skip, index, good)
        if key not in self._wealth:
            sign, lowest, enough = (1, self.target, self._enough) if good else (-1, 1.0, -math.log(DOUBT))
            parts = (self._sums(part, sign) for part in self._parts.get((skip, index), ()))
            self._wealth[key] = log_wealth(parts, lowest=lowest, enough=enough)
        return self._wealth[key]

    def _sums(self, part: PairSums, sign: int) -> Sums:
        a = self.target
        total = part.c - a * part.u
        squares = part.cc - 2 * a * part.cu + a * a * part.uu
        # A sum of squares cannot be below total^2 / n. The limit keeps rounding errors, and scrapes during an update,
        # from increasing the wealth.
        return Sums(part.n, sign * total, max(squares, total**2 / max(part.n, 1.0)))
