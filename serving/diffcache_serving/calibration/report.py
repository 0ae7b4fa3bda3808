"""Formats the findings as text: Markdown that is also readable on a terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from diffcache_serving.calibration.chains import ChainSetting, DepthPoint
from diffcache_serving.calibration.curve import KEPT
from diffcache_serving.calibration.findings import Findings
from diffcache_serving.calibration.heldout import Cell
from diffcache_serving.calibration.reseed import KEPT_DISTANCE
from diffcache_serving.calibration.statistics import Estimate


def build_report(findings: Findings) -> str:
    return "\n".join(
        [
            *_curve(findings),
            *_tests(findings),
            *_levels(findings),
            *_reseed(findings),
            *_drift(findings.drift),
        ]
    )


def steps_advice(findings: Findings) -> str:
    """Returns advice if the calibrated N differs from the smallest sufficient N, else an empty string."""
    steps, smallest = findings.settings.steps, findings.smallest_steps
    if steps > smallest:
        return (
            f"You ask for {steps} steps, but {smallest} already keep {KEPT:.0%}: without any cache that saves "
            f"{(steps - smallest) / steps:.0%}. Consider spec.model.steps: {smallest}, and calibrate at it."
        )
    if steps < smallest:
        return f"You ask for {steps} steps; {KEPT:.0%} of the quality needs {smallest}."
    return ""


def _curve(findings: Findings) -> Iterable[str]:
    yield f"## Quality over N without a cache: the smallest N that keeps {KEPT:.0%} is {findings.smallest_steps}"
    yield ""
    rows = [(p.steps, f"{p.quality:.3f}", _ratio(p.ratio)) for p in findings.curve]
    yield from _table(("steps", "quality", f"of that at {findings.curve[-1].steps} steps"), rows)
    if advice := steps_advice(findings):
        yield from (advice, "")


def _tests(findings: Findings) -> Iterable[str]:
    yield f"## Tests on the fitting half, alpha {findings.alpha:g} (one-sided 95% bounds)"
    yield ""
    rows = [
        (
            f"{test.skip_percent}%",
            test.band,
            test.pairs,
            f"{test.quality:+.3f}",
            f"{test.late_start:+.3f}",
            f"{test.fewer_steps:+.3f}",
            test.reason or "passed",
        )
        for test in findings.fit.tests
    ]
    yield from _table(("skip", "similarity", "pairs", "quality", "- late start", "- fewer steps", "result"), rows)


def _levels(findings: Findings) -> Iterable[str]:
    if not findings.fit.levels:
        yield from ("## Levels: none. This model may skip nothing, or there were too few pairs to tell", "")
        return
    yield "## Levels, and their worth on the held-out half (95% intervals)"
    yield ""
    held_out = {cell.skip_percent: cell for cell in findings.levels}
    rows = [
        (f"{level.skip_percent}%", f"{level.similarity:.2f}", *_worth(held_out.get(level.skip_percent)))
        for level in findings.fit.levels
    ]
    columns = ("skip", "from", "pairs", "quality ratio", "- late start", "- fewer steps", "- random parent", "earned")
    yield from _table(columns, rows)
    yield "earned: better than a late start and than fewer steps at the same cost, each with 95% confidence."
    yield ""


def _worth(cell: Cell | None) -> tuple[object, ...]:
    if cell is None:
        return (0, "no pairs", "", "", "", "")
    differences = (_difference(v) for v in (cell.late_start, cell.fewer_steps, cell.random_parent))
    return (cell.pairs, _ratio(cell.quality_ratio), *differences, "yes" if cell.earned else "no")


def _reseed(findings: Findings) -> Iterable[str]:
    yield f"## Same prompt, another seed: at most {findings.reseed_skip_percent}% may be skipped"
    yield ""
    rows = [(f"{p.skip_percent}%", _ratio(p.ratio)) for p in findings.reseed]
    yield from _table(("skip", "distance between seeds / without a cache"), rows)
    yield f"The cap keeps {KEPT_DISTANCE:.0%} of the distance."
    yield ""


def _drift(drift: Sequence[tuple[ChainSetting, tuple[DepthPoint, ...]]]) -> Iterable[str]:
    yield "## Chains of resumes: does depth cost quality?"
    yield ""
    rows = [
        (
            f"{setting.skip.percent}%",
            setting.band,
            p.depth,
            p.chains,
            _ratio(p.quality_ratio),
            _difference(p.drift) if p.depth > 1 else "the same run",
            "yes" if p.drifts else "no",
        )
        for setting, points in drift
        for p in points
    ]
    if not rows:
        yield from ("Not measured: no level was granted, or no prompts form a chain.", "")
        return
    columns = ("skip", "similarity", "depth", "chains", "quality ratio", "- parent from noise", "drifts")
    yield from _table(columns, rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterable[str]:
    cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    yield lines[0]
    yield "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    yield from lines[1:]
    yield ""


def _ratio(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _difference(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
