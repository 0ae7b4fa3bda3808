"""What comparisons say about skipping so much at such a similarity. Pure.

Of a pair the difference counts: x = q_c - alpha q_u, at least -alpha and at most 1, for qualities from 0 to 1. Skipping
is right where its mean is at least zero. Assumed is what calibration shows (docs/calibration.md): quality does not fall
when the parent is closer or less is skipped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

from diffcache_core.names import SIMILARITY_BIN_WIDTH
from diffcache_core.tuning.confidence import Sums, log_wealth
from diffcache_core.tuning.values import Batch, PairSums

ERROR = 0.05
"""Chance that any level is ever loosened wrongly, split evenly over the levels. Smaller asks for more pairs, by the
logarithm only."""
DOUBT = 0.05
"""Chance that one bin of a right level is ever refused. What that costs is steps, not quality, and it is put right."""
FEW = 30
"""A bin with fewer pairs is hardly ever asked for: it may be passed over on the way to one below it that is proven."""

BINS = round(1 / SIMILARITY_BIN_WIDTH)
CLOSED = 1.01
"""The similarity of a level that nothing may use."""
EDGES = (*(round(index * SIMILARITY_BIN_WIDTH, 2) for index in range(BINS)), CLOSED)
"""Lower edges of the bins, and what lies above the last one."""


def bin_index(lower_edge: float) -> int:
    return round(lower_edge / SIMILARITY_BIN_WIDTH)


class Evidence:
    def __init__(self, batches: Sequence[Batch], skips: Sequence[int], target: float) -> None:
        """`skips`: of all levels, rising. `target`: alpha."""
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
        """Mean quality with the cache over that without, an estimate."""
        parts = self._parts.get((skip, index), ())
        uncached = sum(part.u for part in parts)
        return sum(part.c for part in parts) / uncached if uncached > 0 else None

    def proven(self, skip: int, index: int, passed: int) -> bool:
        """Whether skipping so much keeps the target in this bin.

        `passed`: bins between this and the level in force that were passed over. A level errs for the first time at the
        highest bin that is wrong, or below it after passing it over, and its error is shared out over these by
        1/(1*2) + 1/(2*3) + ... = 1. So the number of bins does not matter: they are asked in a fixed order.
        """
        needed = self._enough + math.log((passed + 1) * (passed + 2) / 2)
        return self._log_wealth(skip, index, good=True) >= needed

    def disproven(self, skip: int, index: int) -> bool:
        """Whether skipping so much, or even less, misses the target in this bin."""
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
        # No sum of squares is below this; it keeps rounding, and scrapes in the midst of an update, from making money.
        return Sums(part.n, sign * total, max(squares, total**2 / max(part.n, 1.0)))
