"""Tests whether a mean is above zero; the test stays valid however often one looks at it. Pure.

The idea: a gambler bets that the mean is above zero, and becomes rich only if it is. If the mean of every value, given
the values before it, is at most zero, the chance that the gambler's wealth *ever* exceeds 1/d is at most d (Ville's
inequality). So the number of pairs or of looks need not be fixed in advance.

The bet: for values x >= -r, a stake 0 <= s < 1, and y = x/r >= -1 (Fan, Grama, Liu 2015, lemma 4.1)

    exp(s y - psi(s) y^2) <= 1 + s y,    psi(s) = -log(1 - s) - s,

so, if the mean is at most zero, the left side has an expectation of at most 1 and may be multiplied over all values.
This is the empirical-Bernstein supermartingale of Waudby-Smith and Ramdas (arXiv 2010.09686, theorem 2), centred at the
mean under test. It only needs the sums of x and x^2, so single values need not be kept, and their grouping does not
matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

STAKES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""The wealth is split evenly over these stakes, and the best one soon has nearly all of it. For a mean m in units of r,
the best stake is m / (m + m^2 + variance). More stakes come closer to it, but cost log(number of stakes) of log
wealth."""

PIECE = 50
"""Pairs after which a reserved part of the wealth enters the bets, so that losses before a change of the real mean do
not count for ever. A smaller value reacts sooner, but leaves less wealth for each piece."""

MEMORY = math.log(10)
"""How far the log wealth may rise above the log wealth of a proof; further gains are not counted. A lower value forgets
the past sooner after a change, but lets a proof come and go."""


@dataclass(frozen=True)
class Sums:
    """The sum of `count` values, and the sum of their squares."""

    count: float
    total: float
    squares: float


def log_wealth(parts: Iterable[Sums], *, lowest: float, enough: float) -> float:
    """Returns the natural logarithm of the wealth from betting that the mean is above zero; -inf without values.

    Args:
        parts: the values in groups, in order of time. The order within a group does not matter.
        lowest: r > 0; no value is below -r.
        enough: the log wealth that counts as proof. Wealth is limited to `MEMORY` above it.

    At the j-th piece the share 1/(j (j+1)) of the initial wealth enters the bets; the shares add up to one.
    """
    limit = enough + MEMORY
    logs = [-math.inf] * len(STAKES)
    for at, piece in enumerate(_pieces(parts), start=1):
        fresh = -math.log(at * (at + 1) * len(STAKES))
        y, yy = piece.total / lowest, piece.squares / lowest**2
        logs = [
            min(limit, _log_add(log, fresh) + stake * y - psi * yy)
            for log, (stake, psi) in zip(logs, _WAGERS, strict=True)
        ]
    top = max(logs)
    return top if top == -math.inf else top + math.log(sum(math.exp(log - top) for log in logs))


def _pieces(parts: Iterable[Sums]) -> Iterator[Sums]:
    """Merges parts until they have at least `PIECE` pairs. The last piece may have fewer."""
    count = total = squares = 0.0
    for part in parts:
        count, total, squares = count + part.count, total + part.total, squares + part.squares
        if count >= PIECE:
            yield Sums(count, total, squares)
            count = total = squares = 0.0
    if count:
        yield Sums(count, total, squares)


def _psi(stake: float) -> float:
    return -math.log1p(-stake) - stake


_WAGERS = tuple((stake, _psi(stake)) for stake in STAKES)


def _log_add(a: float, b: float) -> float:
    low, high = min(a, b), max(a, b)
    return high + math.log1p(math.exp(low - high))
