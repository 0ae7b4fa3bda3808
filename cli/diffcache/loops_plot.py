"""Plots the result of `diffcache simulate-loops`: what the loops did over the days."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffcache_core.simulator.loops.cache import Sample
from diffcache_core.simulator.loops.simulation import Comparison

BLUE, ORANGE, GREEN, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#999999",
)  # Okabe & Ito: colour-blind people can distinguish them
DAY_SECONDS = 86400.0
SMOOTHING = 6  # hours, because the steps saved in one hour are mostly random
CLOSED = 1.0  # no request reaches a level above this similarity


def write_plot(path: Path, comparison: Comparison, title: str) -> None:
    """Writes a PNG, SVG or PDF; the ending of the name decides."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display
    from matplotlib import pyplot as plt

    samples = comparison.ours.samples
    begin = samples[0].at if samples else 0.0
    days = [(sample.at - begin) / DAY_SECONDS for sample in samples]
    figure, axes = plt.subplots(6, 1, figsize=(11, 14), sharex=True, layout="constrained")
    _replicas(axes[0], comparison, begin)
    _line(axes[1], days, [s.backlog_seconds for s in samples], "highest backlog a pod, s")
    _line(axes[2], days, _saved(samples), f"steps saved ratio, {SMOOTHING} h")
    _levels(axes[3], days, samples)
    _line(axes[4], days, [s.tuning.capacity_bytes / 2**20 for s in samples], "capacity, MiB", steps=True)
    _line(axes[5], days, [s.p95_seconds for s in samples], "p95 of the hour, s")
    axes[-1].set_xlabel("days")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _replicas(axis: Any, comparison: Comparison, begin: float) -> None:
    for outcome, colour, name in (
        (comparison.uncached_replicas, GREY, "no cache, same scaling"),
        (comparison.ours_replicas, BLUE, "ours"),
    ):
        at = [(when - begin) / DAY_SECONDS for when, _ in outcome.replicas]
        counts = [count for _, count in outcome.replicas]
        end = (outcome.end - begin) / DAY_SECONDS
        axis.step([*at, end], [*counts, counts[-1]], where="post", color=colour, linewidth=0.9, label=name)
    axis.set_ylabel("pods")
    axis.set_ylim(bottom=0)
    axis.legend(loc="upper right", ncols=2, fontsize=8, frameon=False)
    axis.grid(alpha=0.3)


def _levels(axis: Any, days: Sequence[float], samples: Sequence[Sample]) -> None:
    colours = (BLUE, ORANGE, GREEN, GREY, "#CC79A7", "#F0E442", "#56B4E9", "black")
    levels = samples[0].tuning.levels if samples else ()
    for number, level in enumerate(levels):
        similarities = [min(CLOSED, sample.tuning.levels[number].similarity) for sample in samples]
        colour = colours[number % len(colours)]
        axis.step(days, similarities, where="post", color=colour, label=f"skip {level.skip_percent}%")
    axis.set_ylabel("levels: similarity")
    if levels:
        axis.legend(loc="upper right", ncols=len(levels), fontsize=8, frameon=False)
    axis.grid(alpha=0.3)


def _line(axis: Any, days: Sequence[float], values: Sequence[float | None], name: str, *, steps: bool = False) -> None:
    shown = [float("nan") if value is None else value for value in values]
    if steps:
        axis.step(days, shown, where="post", color=BLUE)
    else:
        axis.plot(days, shown, color=BLUE, linewidth=0.9)
    axis.set_ylabel(name)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)


def _saved(samples: Sequence[Sample]) -> list[float | None]:
    """Returns the steps saved ratio over the last SMOOTHING hours, for each sample."""
    ratios: list[float | None] = []
    for end in range(1, len(samples) + 1):
        recent = samples[max(0, end - SMOOTHING) : end]
        steps = sum(sample.steps for sample in recent)
        ratios.append(sum(sample.skipped for sample in recent) / steps if steps else None)
    return ratios
