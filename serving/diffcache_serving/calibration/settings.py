"""What a calibration measures, and how much. Pure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from diffcache_core.cache.resume import skip_to_k
from diffcache_core.choices import Scheduler

LOWEST_SIMILARITY, BIN_WIDTH = 0.40, 0.10
"""The bands of similarity, from 1 downwards. Below .40 prompts have nothing in common, and no measured model gained
anything. Narrower bins would place a threshold more exactly. But each bin is a separate test, and with 32 pairs in the
fitting half of a bin of .05 the bound was as wide as the differences to detect (measured on the bundled model)."""

SKIP_EIGHTHS = (1, 2, 3, 4, 5)
"""Candidate skips in eighths of N: with N = 8 every step up to 5. Each more candidate costs (N - k) steps per pair.
Beyond 5/8 hardly any resumed picture kept its quality."""

CURVE_STEPS = (2, 3, 4, 5, 6, 8, 12, 20)
"""The values of N for the curve without a cache. The calibrated N is added. The largest N is the reference."""


class CalibrationError(Exception):
    """The calibration cannot run as requested. The message names the option and says what to do."""


@dataclass(frozen=True)
class Skip:
    """A candidate level: `percent` of N, which is `k` steps."""

    percent: int
    k: int


@dataclass(frozen=True)
class Band:
    """Similarities from `low` (inclusive) to `high` (exclusive, except that the top band holds 1 and its rounding)."""

    low: float
    high: float

    def holds(self, similarity: float) -> bool:
        return self.low <= similarity and (similarity < self.high or self.high >= 1)

    def __str__(self) -> str:
        return f"{self.low:.2f}-{self.high:.2f}"


def build_bins() -> tuple[Band, ...]:
    """Returns the bins from the highest similarity downwards: the fixed-sequence test uses this order."""
    count = round((1 - LOWEST_SIMILARITY) / BIN_WIDTH)
    edges = [round(1 - BIN_WIDTH * i, 4) for i in range(count + 1)]
    return tuple(Band(low, high) for high, low in itertools.pairwise(edges))


BINS = build_bins()


def candidate_skips(steps: int) -> tuple[Skip, ...]:
    """Returns the candidate skips at N = `steps`, rising, each with a different k.

    The percentage is ceil(100 k / N), the smallest one that `skip_to_k`, which rounds down, converts back to k.
    """
    found: dict[int, int] = {}
    for eighths in SKIP_EIGHTHS:
        k = max(round(steps * eighths / 8), 1)
        percent = -(-100 * k // steps)
        if percent < 100:
            found.setdefault(skip_to_k(percent, steps), percent)
    return tuple(Skip(percent, k) for k, percent in sorted(found.items()))


@dataclass(frozen=True)
class Settings:
    """The settings of the measurements. `alpha` is not among them: it affects only the decision, so a new value needs
    no new runs."""

    steps: int = 8
    guidance: float = 3.0
    scheduler: Scheduler = "DDIM"
    pairs_per_bin: int = 128  # of both halves; the width of the bound falls with its root, the time grows with it
    curve_prompts: int = 64
    curve_at: tuple[int, ...] = CURVE_STEPS
    reseed_prompts: int = 12
    reseed_seeds: int = 4
    chains: int = 24  # per granted level
    chain_length: int = 5  # resumes in a row

    @property
    def skips(self) -> tuple[Skip, ...]:
        return candidate_skips(self.steps)

    @property
    def curve_steps(self) -> tuple[int, ...]:
        return tuple(sorted({*self.curve_at, self.steps}))
