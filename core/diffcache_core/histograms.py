"""Quantiles of Prometheus' cumulative buckets. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """Returns the quantile `share` (0 to 1) of a histogram, linear inside a bucket like Prometheus'
    `histogram_quantile`.

    `buckets`: cumulative counts by upper bound. Returns None without observations. In the last bucket, which has no
    upper bound, it returns the lower bound.
    """
    bounds = sorted(buckets)
    # Sums over restarts may not rise from bucket to bucket: the running maximum corrects this.
    counts = list(itertools.accumulate((buckets[bound] for bound in bounds), max))
    if not counts or counts[-1] <= 0:
        return None
    rank = share * counts[-1]
    index = next(i for i, count in enumerate(counts) if count >= rank)
    low, below = (bounds[index - 1], counts[index - 1]) if index else (0.0, 0.0)
    if math.isinf(bounds[index]):
        return low
    return low + (bounds[index] - low) * (rank - below) / (counts[index] - below)
