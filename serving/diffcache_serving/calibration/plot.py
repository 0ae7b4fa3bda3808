"""Plots a calibration: quality ratio over similarity, one panel per skip, on the held-out half."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffcache_serving.calibration.findings import Findings
from diffcache_serving.calibration.fit import bands_of
from diffcache_serving.calibration.heldout import Cell
from diffcache_serving.calibration.settings import LOWEST_SIMILARITY, Skip

CONTROLS = {  # by control: colour (Okabe & Ito: colour-blind people can distinguish them), mark, label
    "fewer_steps": ("#D55E00", "s", "fewer steps, no cache"),
    "late_start": ("#009E73", "^", "late start, no state"),
    "random_parent": ("#999999", "x", "random parent"),
}
CACHED_COLOUR, GRANTED_COLOUR = "#0072B2", "#0072B2"
PANELS_A_ROW = 3
LOWEST_RATIO = 0.5  # a late start at 5/8 is far below; showing it would flatten the important part


def write_plot(path: Path, findings: Findings) -> None:
    """Writes a PNG, SVG or PDF; the ending of the name decides."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display
    from matplotlib import pyplot as plt

    skips = findings.settings.skips
    columns = min(PANELS_A_ROW, len(skips))
    rows = math.ceil((len(skips) + 1) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.4 * columns, 3.4 * rows), squeeze=False, layout="constrained")
    flat = list(axes.flat)
    for axis, skip in zip(flat, skips, strict=False):
        _draw_panel(axis, skip, findings)
    handles, labels = flat[0].get_legend_handles_labels()
    for axis in flat[len(skips) :]:
        axis.axis("off")
    flat[len(skips)].legend(handles, labels, loc="center", frameon=False)
    figure.suptitle(f"What {findings.source['model']} may skip at {findings.settings.steps} steps (held-out concepts)")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw_panel(axis: Any, skip: Skip, findings: Findings) -> None:
    cells = [cell for cell in findings.bins if cell.skip_percent == skip.percent]
    at = [(cell.band.low + cell.band.high) / 2 for cell in cells]
    ratios = [cell.quality_ratio.value for cell in cells]
    axis.axhline(1, color="black", linewidth=0.6, label="without a cache")
    axis.axhline(findings.alpha, color="black", linewidth=0.9, linestyle=":", label=f"alpha = {findings.alpha:g}")
    for name, (colour, mark, label) in CONTROLS.items():
        values = [cell.control_ratios[name] for cell in cells]
        axis.plot(at, values, color=colour, marker=mark, markersize=4, linewidth=1, label=label)
    axis.errorbar(
        at,
        ratios,
        yerr=_whiskers(cells),
        color=CACHED_COLOUR,
        marker="o",
        markersize=5,
        linewidth=1.8,
        capsize=2,
        label="resumed from the cache (95%)",
    )
    for level, band in bands_of(findings.fit.levels):
        if level.skip_percent == skip.percent:
            axis.axvspan(band.low, band.high, color=GRANTED_COLOUR, alpha=0.12, label="_granted")
    granted = any(level.skip_percent == skip.percent for level in findings.fit.levels)
    axis.set_title(f"skip {skip.percent}% (k = {skip.k})" + ("" if granted else ", not granted"), fontsize=10)
    axis.set_xlim(LOWEST_SIMILARITY, 1)
    axis.set_ylim(LOWEST_RATIO, 1.15)
    axis.set_xlabel("similarity of prompt and parent")
    axis.set_ylabel("quality / uncached")


def _whiskers(cells: Sequence[Cell]) -> list[list[float]]:
    """Returns the lengths below and above the values. They are 0 if a single cluster gives no bound."""

    def length(value: float) -> float:
        return max(value, 0.0) if math.isfinite(value) else 0.0

    estimates = [cell.quality_ratio for cell in cells]
    return [[length(e.value - e.low) for e in estimates], [length(e.high - e.value) for e in estimates]]
