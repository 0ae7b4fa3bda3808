"""Measures quality over N without a cache: how many steps can be saved without any cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffcache_serving.calibration.bench import Bench
from diffcache_serving.calibration.statistics import Estimate, estimate

KEPT = 0.99
"""The share of the quality at the largest N that a smaller N must keep. With a lower value, a cache would get credit
for savings that a lower N gives to every request. With a value closer to 1, the noise of some dozen prompts decides."""


@dataclass(frozen=True)
class CurvePoint:
    steps: int
    quality: float  # mean
    ratio: Estimate  # quality / quality at the largest N, with the same prompts and seeds


def measure_curve(bench: Bench, indexes: Sequence[int]) -> list[dict[str, Any]]:
    """Returns one item per prompt: its quality at each N."""
    steps = bench.settings.curve_steps
    jobs = []
    for i in indexes:
        text, noise = bench.encode(i), bench.noise(i)
        jobs += [bench.from_noise(text, noise, n) for n in steps]
    owners = [i for i in indexes for _ in steps]
    scores = [round(q, 6) for q in bench.score(bench.run(jobs), owners)]
    return [
        {"concept": bench.prompts[i].concept, "quality": scores[at * len(steps) : (at + 1) * len(steps)]}
        for at, i in enumerate(indexes)
    ]


def read_curve(items: Sequence[dict[str, Any]], steps: Sequence[int]) -> list[CurvePoint]:
    """Returns the points of the curve. `steps` must rise; the last one is the reference. Pure."""
    concepts = [item["concept"] for item in items]
    reference = [item["quality"][-1] for item in items]
    columns = [[item["quality"][at] for item in items] for at in range(len(steps))]
    return [
        CurvePoint(n, sum(column) / len(column), estimate(column, [concepts], per=reference))
        for n, column in zip(steps, columns, strict=True)
    ]


def smallest_steps(curve: Sequence[CurvePoint]) -> int:
    """Returns the smallest measured N for which it and every larger N keep KEPT of the quality."""
    smallest = curve[-1].steps
    for point in reversed(curve):
        if point.ratio.value < KEPT:
            break
        smallest = point.steps
    return smallest
