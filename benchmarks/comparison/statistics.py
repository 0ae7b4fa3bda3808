"""Intervals of figures, shares of steps, distances of pictures. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(statistic: Callable[[np.ndarray], np.ndarray], n: int, resamples: int, seed: int = 0) -> Interval:
    """95% percentile interval of `statistic` over resampled requests; paired, as all systems share the indices.

    Args:
        statistic: takes indices (resamples, n) and returns one figure a row.
        n: requests.
        resamples: rows.
        seed: of the resampling.
    """
    indices = np.random.default_rng(seed).integers(n, size=(resamples, n))
    low, high = np.percentile(statistic(indices), (2.5, 97.5))
    return Interval(float(statistic(np.arange(n)[None])[0]), float(low), float(high))


def ratio_of_means(top: np.ndarray, bottom: np.ndarray, resamples: int) -> Interval:
    return bootstrap(lambda i: top[i].mean(axis=1) / bottom[i].mean(axis=1), len(top), resamples)


def mean_difference(one: np.ndarray, other: np.ndarray, resamples: int) -> Interval:
    return bootstrap(lambda i: (one - other)[i].mean(axis=1), len(one), resamples)


def median_ratio(top: np.ndarray, bottom: np.ndarray, resamples: int) -> Interval:
    """Median of the ratios request by request."""
    return bootstrap(lambda i: np.median((top / bottom)[i], axis=1), len(top), resamples)


def share_steps(total: int, requests: int, most: int, random: np.random.Generator) -> list[int]:
    """Steps of each request, two neighbouring numbers in random order, which add up to `total`."""
    few, rest = divmod(total, requests)
    if few < 1 or few + (rest > 0) > most:
        raise ValueError(f"{total} steps cannot be shared among {requests} requests of 1 to {most} steps")
    return [few + 1 if i < rest else few for i in random.permutation(requests)]


def pairwise_rms(pictures: Sequence[np.ndarray]) -> float:
    """Mean RMS distance of all pairs, in grey levels of 255."""
    distances = [
        float(np.sqrt(np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2)))
        for a, b in itertools.combinations(pictures, 2)
    ]
    return sum(distances) / len(distances)
