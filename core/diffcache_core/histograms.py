"""Quantiles of Prometheus' cumulative buckets. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """Of cumulative counts by upper bound, linear inside a bucket as Prometheus' `histogram_quantile` has it.

    None without observations. In the last bucket, which has no end, it is that bucket's beginning.
    """
    bounds = sorted(buckets)
    # Buckets of one histogram are scraped together, but each only grows: a sum over restarts may be out of order.
    counts = list(itertools.accumulate((buckets[bound] for bound in bounds), max))
    if not counts or counts[-1] <= 0:
        return None
    rank = share * counts[-1]
    index = next(i for i, count in enumerate(counts) if count >= rank)
    low, below = (bounds[index - 1], counts[index - 1]) if index else (0.0, 0.0)
    if math.isinf(bounds[index]):
        return low
    return low + (bounds[index] - low) * (rank - below) / (counts[index] - below)
