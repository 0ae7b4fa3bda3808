"""Measures how many steps the same prompt with other seeds may skip before its pictures look alike."""

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
"""The share of the distance between pictures of different seeds that must remain. A user who repeats a prompt wants
another picture; a difference that is a tenth smaller is not visible side by side. With a higher value such requests
skip fewer steps; with a lower value their pictures resemble the parent's."""


@dataclass(frozen=True)
class ReseedPoint:
    skip_percent: int
    ratio: Estimate  # mean distance between seeds if resumed from one parent / the same without a cache


def measure_reseed(bench: Bench, i: int) -> dict[str, Any]:
    """Returns one item: the mean pairwise RMS pixel distance (0..1) between the seeds of prompt i, without a cache and
    by k."""
    settings, text = bench.settings, bench.encode(i)
    noises = [bench.noise(i, offset) for offset in range(1, settings.reseed_seeds + 1)]  # without the parent's seed
    parent = bench.clean([i])[i]
    jobs = [bench.from_noise(text, noise, settings.steps) for noise in noises]
    for skip in settings.skips:
        jobs += [bench.resumed(text, parent, noise, skip.k) for noise in noises]
    pictures = torch.split(bench.pictures(bench.run(jobs)), len(noises))
    uncached, *cached = (round(_mean_distance(group), 6) for group in pictures)
    return {"concept": bench.prompts[i].concept, "uncached": uncached, "cached": cached}


def _mean_distance(pictures: torch.Tensor) -> float:
    """Returns the mean of sqrt(mean((a - b)^2)) over all pairs of the pictures (n, 3, height, width)."""
    distances = [(a - b).square().mean().sqrt().item() for a, b in itertools.combinations(pictures, 2)]
    return sum(distances) / len(distances)


def read_reseed(items: Sequence[dict[str, Any]], skips: Sequence[Skip]) -> list[ReseedPoint]:
    """Returns one point per candidate skip, rising. Pure."""
    concepts, uncached = [item["concept"] for item in items], [item["uncached"] for item in items]
    return [
        ReseedPoint(skip.percent, estimate([item["cached"][at] for item in items], [concepts], per=uncached))
        for at, skip in enumerate(skips)
    ]


def reseed_skip_percent(points: Sequence[ReseedPoint]) -> int:
    """Returns the largest skip for which it and every smaller skip keep KEPT_DISTANCE; 0 if none does."""
    largest = 0
    for point in points:
        if point.ratio.value < KEPT_DISTANCE:
            break
        largest = point.skip_percent
    return largest
