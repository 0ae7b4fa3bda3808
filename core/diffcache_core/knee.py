"""Up to where more capacity is worth it. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping


def knee(saved: Mapping[float, float], min_gain: float) -> float:
    """The multiple of the capacity at which one more doubling would bring `min_gain`: where saved - min_gain * log2 is
    highest.

    Args:
        saved: steps saved ratio by multiple of the capacity, at least one.
        min_gain: the steps saved ratio that a doubling must bring.

    Returns:
        A multiple between the lowest and the highest of `saved`. Between the measured ones a parabola (over the
        logarithm of the capacity) through the best and its two neighbours says where the top lies.
    """
    points = sorted((math.log2(multiple), ratio - min_gain * math.log2(multiple)) for multiple, ratio in saved.items())
    best = max(range(len(points)), key=lambda i: points[i][1])
    if best in (0, len(points) - 1):
        return float(2 ** points[best][0])
    left, middle, right = points[best - 1 : best + 2]
    return float(2 ** _top(left, middle, right))


def _top(left: tuple[float, float], middle: tuple[float, float], right: tuple[float, float]) -> float:
    """Where the parabola through three points, the middle one highest, has its top."""
    rise, fall = (
        (after[1] - before[1]) / (after[0] - before[0]) for before, after in itertools.pairwise((left, middle, right))
    )
    if rise == fall:  # a straight line, so all three are equally good
        return middle[0]
    half_left, half_right = (left[0] + middle[0]) / 2, (middle[0] + right[0]) / 2
    # The slope is linear and equals the chords' slopes in their middles.
    return half_left + (half_right - half_left) * rise / (rise - fall)
