"""Evidence that may be looked at at any time: it errs as seldom as it says, it sees what is there, it forgets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from diffcache_core.tuning.confidence import PIECE, STAKES, Sums, log_wealth

PROOF = math.log(1 / 0.05)


def sums(values: NDArray[np.float64], size: int) -> list[Sums]:
    return [
        Sums(len(part), float(part.sum()), float((part**2).sum()))
        for part in (values[at : at + size] for at in range(0, len(values), size))
    ]


def looks(values: NDArray[np.float64], size: int, lowest: float = 1.0) -> list[float]:
    """The log wealth after each group."""
    parts = sums(values, size)
    return [log_wealth(parts[: n + 1], lowest=lowest, enough=PROOF) for n in range(len(parts))]


@given(st.sampled_from(STAKES), st.floats(-1, 10))
def test_no_single_wager_pays_more_than_it_may(stake: float, y: float) -> None:
    """Fan, Grama, Liu 2015, lemma 4.1; this is why the wealth of who bets on what is not so stays small."""
    assert math.exp(stake * y + (math.log1p(-stake) + stake) * y * y) <= (1 + stake * y) * (1 + 1e-12)


@pytest.mark.parametrize("kind", ["noise", "rare failures", "coins", "worst"])
def test_a_mean_of_zero_is_hardly_ever_proven_however_often_one_looks(kind: str) -> None:
    rng = np.random.default_rng(3)
    shape = (300, 1000)
    x = {
        "noise": np.clip(rng.normal(0, 0.05, shape), -1, 1),
        "rare failures": np.where(rng.random(shape) < 0.01, -0.7, 0.7 * 0.01 / 0.99),
        "coins": rng.choice([-1.0, 1.0], shape),
        "worst": np.where(rng.random(shape) < 0.1, -1.0, 1 / 9),
    }[kind]
    crossed = sum(max(looks(run, 50)) >= PROOF for run in x)
    assert crossed <= 300 * 0.05


def test_a_change_for_the_worse_leaves_a_mean_below_zero_unproven() -> None:
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.normal(0.05, 0.1, 5000), rng.normal(-0.05, 0.1, 1000)])
    wealth = looks(x, 50)
    assert wealth[99] >= PROOF
    assert wealth[-1] < PROOF


def test_a_change_for_the_better_is_seen_soon_even_after_a_long_time() -> None:
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.normal(-0.05, 0.1, 20_000), rng.normal(0.05, 0.1, 1000)])
    wealth = looks(x, 100)
    assert wealth[199] < 0
    assert wealth[-1] >= PROOF


@pytest.mark.parametrize(("mean", "spread", "pairs"), [(0.037, 0.06, 250), (0.0155, 0.02, 500), (0.0046, 0.02, 2500)])
def test_some_hundred_pairs_are_enough(mean: float, spread: float, pairs: int) -> None:
    """The differences of the bundled model, of a photograph model, and of one that is just 1.5% above its target."""
    rng = np.random.default_rng(6)
    proven = sum(
        log_wealth(sums(rng.normal(mean, spread, pairs), 50), lowest=0.95, enough=PROOF) >= PROOF for _ in range(100)
    )
    assert proven >= 95


@given(st.integers(1, PIECE))
def test_grouping_inside_a_piece_does_not_matter(size: int) -> None:
    x = np.random.default_rng(7).normal(0.02, 0.1, PIECE)
    grouped = log_wealth(sums(x, size), lowest=1.0, enough=PROOF)
    assert grouped == pytest.approx(log_wealth(sums(x, PIECE), lowest=1.0, enough=PROOF), abs=1e-9)


def test_nothing_is_known_before_the_first_value() -> None:
    assert log_wealth([], lowest=1.0, enough=PROOF) == -math.inf
    assert log_wealth([Sums(0, 0, 0)], lowest=1.0, enough=PROOF) == -math.inf
