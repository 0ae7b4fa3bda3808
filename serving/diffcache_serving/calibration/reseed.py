"""How far the same prompt under other seeds may skip before its pictures look alike."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from diffcache_serving.calibration.bench import Bench
from diffcache_serving.calibration.settings import Skip
from diffcache_serving.calibration.statistics import Estimate, estimate

KEPT_DISTANCE = 0.9
"""The share of the distance between pictures of different seeds that must remain. Whoever asks for the same prompt
again wants another picture; a tenth less difference is not seen side by side. Higher caps such requests at smaller
skips, lower makes their pictures resemble the parent's."""


@dataclass(frozen=True)
class ReseedPoint:
    skip_percent: int
    ratio: Estimate  # mean distance between seeds when resumed from one parent / without a cache


def measure_reseed(bench: Bench, i: int) -> dict[str, Any]:
    """One item: mean pairwise RMS pixel distance (0..1) between the seeds of prompt i, without a cache and by k."""
    settings, text = bench.settings, bench.encode(i)
    noises = [bench.noise(i, offset) for offset in range(1, settings.reseed_seeds + 1)]  # none is the parent's
    parent = bench.clean([i])[i]
    jobs = [bench.from_noise(text, noise, settings.steps) for noise in noises]
    for skip in settings.skips:
        jobs += [bench.resumed(text, parent, noise, skip.k) for noise in noises]
    pictures = torch.split(bench.pictures(bench.run(jobs)), len(noises))
    uncached, *cached = (round(_mean_distance(group), 6) for group in pictures)
    return {"concept": bench.prompts[i].concept, "uncached": uncached, "cached": cached}


def _mean_distance(pictures: torch.Tensor) -> float:
    """Mean over all pairs of sqrt(mean((a - b)^2)) of (n, 3, height, width) pictures."""
    distances = [(a - b).square().mean().sqrt().item() for a, b in itertools.combinations(pictures, 2)]
    return sum(distances) / len(distances)


def read_reseed(items: Sequence[dict[str, Any]], skips: Sequence[Skip]) -> list[ReseedPoint]:
    """Pure. One point a candidate skip, rising."""
    concepts, uncached = [item["concept"] for item in items], [item["uncached"] for item in items]
    return [
        ReseedPoint(skip.percent, estimate([item["cached"][at] for item in items], [concepts], per=uncached))
        for at, skip in enumerate(skips)
    ]


def reseed_skip_percent(points: Sequence[ReseedPoint]) -> int:
    """The largest skip up to which every skip keeps seeds apart; 0 if none does."""
    largest = 0
    for point in points:
        if point.ratio.value < KEPT_DISTANCE:
            break
        largest = point.skip_percent
    return largest
