"""Evidence that a mean is above zero which may be looked at as often as one likes. Pure.

A gambler who stakes on "the mean is above zero" grows rich only if it is: were the mean of every value, given those
before it, at most zero, his wealth would exceed 1/d at *any* time with a chance of at most d (Ville). So nobody has to
fix the number of pairs or of looks beforehand.

The wager: values x >= -r and a stake 0 <= s < 1. For y = x/r >= -1 (Fan, Grama, Liu 2015, lemma 4.1)

    exp(s y - psi(s) y^2) <= 1 + s y,    psi(s) = -log(1 - s) - s,

so the left side, whose expectation is then at most 1, may be multiplied over all values. This is the
empirical-Bernstein supermartingale of Waudby-Smith and Ramdas (arXiv 2010.09686, theorem 2) centred at the mean under
test. It needs sums of x and x^2 only, so nobody has to keep single values, and how they were grouped does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

STAKES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""The wealth is split evenly over these, and the right one soon owns nearly all of it. The best stake is
m / (m + m^2 + variance) for a mean m in units of r. More of them come closer and cost log(their number)."""

PIECE = 50
"""Pairs after which a part of the wealth that was kept back is staked anew, so that what was lost before a change of
the world does not weigh for ever. A smaller piece follows sooner and leaves less for each."""

MEMORY = math.log(10)
"""How far, as a logarithm, wealth may rise above what proves: what is won beyond it is put aside. Less forgets the past
sooner after a change, and lets a proof come and go."""


@dataclass(frozen=True)
class Sums:
    """Over `count` values: their sum and the sum of their squares."""

    count: float
    total: float
    squares: float


def log_wealth(parts: Iterable[Sums], *, lowest: float, enough: float) -> float:
    """Logarithm of the wealth won by betting that the mean is above zero; -inf before the first value.

    Args:
        parts: the values in order of time, in groups. Within a group their order is lost, which costs nothing.
        lowest: r > 0; no value is below -r.
        enough: the log wealth that counts as proof. Wealth is limited to `MEMORY` above it.

    The j-th piece starts with the share 1/(j (j+1)) of the initial wealth; the shares add up to one.
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
    """The parts gathered until they hold `PIECE` pairs; the last one as it is."""
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
