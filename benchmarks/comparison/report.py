"""From figures to what is printed: tables, and verdicts in words."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.comparison.figures import PassFigures, RowFigures
from benchmarks.comparison.rows import (
    BYPASS,
    CONTROLS,
    EXACT,
    FEWER,
    LATE,
    LRU_TIGHT,
    OURS,
    RANDOM,
    ROWS,
    TIGHT,
    UNIFORM,
)
from benchmarks.comparison.statistics import Interval

MAX_SLOWER = 0.03  # what BYPASS may cost against stock


def report(console: Console, figures: Sequence[PassFigures]) -> None:
    for one in figures:
        console.print(pass_table(one))
        if one.levels:
            console.print(level_table(one))
        for line in verdicts(one):
            console.print(line)
    console.print(
        "Brackets: 95%, paired bootstrap over requests (diversity: over prompts, measured once for each N, on the warm "
        "caches). fetch: look-up + load, in denoiser steps. ~: computed from steps, not timed."
    )


def pass_table(figures: PassFigures) -> Table:
    table = Table(
        title=f"N = {figures.steps}, {figures.stream} stream, {figures.requests} requests "
        f"(one denoiser step: {figures.step_milliseconds:.1f} ms)"
    )
    table.add_column("", no_wrap=True)
    for name in (
        "steps run",
        "SSR",
        "exact/resumed",
        "req/s",
        "throughput x stock",
        "CLIPScore / BYPASS, all",
        "where ours resumed",
        "diversity / uncached",
        "fetch p50/p95",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ROWS:
        row = figures.row(name)
        if name == FEWER:
            table.add_section()
        table.add_row(name, *(_cells(row) if row else ["-"] * 9))
    return table


def _cells(row: RowFigures) -> list[str]:
    computed = f"~{row.computed_throughput:.2f}" if row.computed_throughput is not None else ""
    return [
        f"{row.steps_run:,}",
        f"{row.steps_saved_ratio:.3f}",
        f"{row.exact}/{row.approximate}",
        f"{row.requests_per_second:.2f}" if row.requests_per_second is not None else "",
        str(row.throughput) if row.throughput is not None else computed,
        str(row.quality),
        str(row.quality_resumed) if row.quality_resumed is not None else "-",
        str(row.diversity),
        f"{row.fetch_p50:.2f}/{row.fetch_p95:.2f}" if row.fetch_p50 is not None else "",
    ]


def level_table(figures: PassFigures) -> Table:
    table = Table(
        title=f"N = {figures.steps}, {figures.stream}: CLIPScore by the k that ours was granted, same requests"
    )
    for name in ("k", "requests", "similarity", "BYPASS", "ours"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in (BYPASS, LATE, RANDOM, UNIFORM):
        table.add_column(f"ours - {name}", justify="right", no_wrap=True)
    for level in figures.levels:
        table.add_row(
            f"{level.k}",
            f"{level.requests}",
            f"{level.similarity_low:.2f}-{level.similarity_high:.2f}",
            f"{level.means[BYPASS]:.3f}",
            f"{level.means[OURS]:.3f}",
            *(
                _signed(level.differences[name]) if name in level.differences else "-"
                for name in (BYPASS, LATE, RANDOM, UNIFORM)
            ),
        )
    return table


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def verdicts(figures: PassFigures) -> list[str]:
    """In words: BYPASS against stock, every control that is better than ours, every level that is not the cache's."""
    where = f"N = {figures.steps}, {figures.stream}"
    time_ratio = figures.bypass_time
    within = "within" if time_ratio.value <= 1 + MAX_SLOWER else "NOT within"
    sure = "" if time_ratio.high <= 1 + MAX_SLOWER or within == "NOT within" else ", but the interval reaches beyond"
    lines = [
        f"{where}: BYPASS takes {time_ratio} of stock's time (median request), {within} {MAX_SLOWER:.0%}{sure}; "
        f"{figures.identical} of {figures.requests} pictures are stock's bit for bit.",
        f"{where}: after the answer ours works on for {figures.keep_p50_steps:.2f} denoiser steps (median, untimed).",
    ]
    if figures.failed_look_ups:
        lines.append(f"{where}: {figures.failed_look_ups} look-ups failed and became misses.")
    lines += _quality_verdicts(figures, where) + _saving_verdicts(figures, where) + _level_verdicts(figures, where)
    if figures.row(FEWER) is None:
        lines.append(
            f"{where}: `{FEWER}` has no row: ours ran fewer steps than there are pictures, and each needs one."
        )
    return lines


def _quality_verdicts(figures: PassFigures, where: str) -> list[str]:
    """Ours against uncached, and against the controls at equal total steps; mean CLIPScore over all requests."""
    cost = figures.differences[BYPASS]
    lines = [f"{where}: ours - uncached: CLIPScore {_signed(cost)}, {_sign_in_words(cost, 'better', 'WORSE')}."]
    for name in CONTROLS:
        if (difference := figures.differences.get(name)) is None:
            continue
        words = _sign_in_words(difference, "ours wins", "the control WINS")
        lines.append(f"{where}: ours - {name} at equal total steps: CLIPScore {_signed(difference)}, {words}.")
    return lines


def _sign_in_words(difference: Interval, above: str, below: str) -> str:
    if difference.low > 0:
        return above
    return below if difference.high < 0 else "no difference shown"


def _saving_verdicts(figures: PassFigures, where: str) -> list[str]:
    """Caches against each other, by steps saved."""
    lines = []
    for one, other in ((OURS, EXACT), (TIGHT, LRU_TIGHT)):
        ours, theirs = figures.row(one), figures.row(other)
        assert ours is not None
        assert theirs is not None
        saved = f"SSR {ours.steps_saved_ratio:.3f} and {theirs.steps_saved_ratio:.3f}"
        if ours.steps_saved_ratio > theirs.steps_saved_ratio:
            lines.append(f"{where}: `{one}` saves more than `{other}`: {saved}.")
        else:
            verb = "saves no more than" if ours.steps_saved_ratio == theirs.steps_saved_ratio else "LOSES to"
            lines.append(f"{where}: `{one}` {verb} `{other}`: {saved}.")
    return lines


def _level_verdicts(figures: PassFigures, where: str) -> list[str]:
    """Levels at which a control with the same steps for the same requests is as good: that skip is not the cache's."""
    lines = []
    for level in figures.levels:
        for name in (LATE, RANDOM, UNIFORM):
            difference = level.differences.get(name)
            if difference is None or difference.low > 0:
                continue
            verb = "beats" if difference.high < 0 else "cannot be told from"
            lines.append(
                f"{where}, k = {level.k} ({level.requests} requests): {name} {verb} the cache, ours - {name} "
                f"{_signed(difference)}."
            )
    return lines
