"""Measures the levels on concepts that the fit did not use. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffcache_core.cache.resume import Level
from diffcache_serving.calibration.fit import Pair, bands_of, clusterings
from diffcache_serving.calibration.settings import BINS, Band, Skip
from diffcache_serving.calibration.statistics import Estimate, estimate, lower_bound


@dataclass(frozen=True)
class Cell:
    """The results of one skip in one band of similarity. Ratios and differences have 95% intervals."""

    skip_percent: int
    band: Band
    pairs: int
    quality_ratio: Estimate  # mean cached / mean uncached
    late_start: Estimate  # mean(cached - late start) in units of the quality; the next two likewise
    fewer_steps: Estimate
    random_parent: Estimate
    control_ratios: dict[str, float]  # by control: mean of the control / mean uncached
    earned: bool  # better than late start and than fewer steps, each with 95% confidence


def report_levels(pairs: Sequence[Pair], levels: Sequence[Level], skips: Sequence[Skip]) -> list[Cell]:
    """Returns one cell per level, for its band, rising. Leaves out bands without pairs."""
    indexes = {skip.percent: index for index, skip in enumerate(skips)}
    cells = [
        _cell([p for p in pairs if band.holds(p.similarity)], level.skip_percent, indexes[level.skip_percent], band)
        for level, band in bands_of(levels)
    ]
    return [cell for cell in cells if cell is not None]


def report_bins(pairs: Sequence[Pair], skips: Sequence[Skip]) -> list[Cell]:
    """Returns one cell for each skip and each bin that has pairs, granted or not. The plot shows them."""
    cells = [
        _cell([p for p in pairs if band.holds(p.similarity)], skip.percent, index, band)
        for index, skip in enumerate(skips)
        for band in BINS
    ]
    return [cell for cell in cells if cell is not None]


def _cell(pairs: Sequence[Pair], percent: int, index: int, band: Band) -> Cell | None:
    if not pairs:
        return None
    by, uncached = clusterings(pairs), [p.uncached for p in pairs]
    controls = {
        "late_start": [p.late_start[index] for p in pairs],
        "fewer_steps": [p.fewer_steps[index] for p in pairs],
        "random_parent": [p.random_parent[index] for p in pairs],
    }
    cached = [p.cached[index] for p in pairs]
    over = {name: [c - q for c, q in zip(cached, values, strict=True)] for name, values in controls.items()}
    return Cell(
        skip_percent=percent,
        band=band,
        pairs=len(pairs),
        quality_ratio=estimate(cached, by, per=uncached),
        late_start=estimate(over["late_start"], by),
        fewer_steps=estimate(over["fewer_steps"], by),
        random_parent=estimate(over["random_parent"], by),
        control_ratios={name: sum(values) / sum(uncached) for name, values in controls.items()},
        earned=all(lower_bound(over[name], by) > 0 for name in ("late_start", "fewer_steps")),
    )
