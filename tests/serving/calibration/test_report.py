"""What people and serving are told of a calibration."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from diffcache_core.cache.resume import Level, Levels
from diffcache_serving.calibration.chains import ChainSetting, DepthPoint
from diffcache_serving.calibration.curve import CurvePoint
from diffcache_serving.calibration.findings import Findings, build_document, write_levels
from diffcache_serving.calibration.fit import Pair, fit_levels
from diffcache_serving.calibration.heldout import report_bins, report_levels
from diffcache_serving.calibration.plot import write_plot
from diffcache_serving.calibration.report import build_report, steps_advice
from diffcache_serving.calibration.reseed import ReseedPoint
from diffcache_serving.calibration.settings import BINS, Band, Settings
from diffcache_serving.calibration.statistics import Estimate
from diffcache_serving.engine.loading import read_levels

SETTINGS = Settings(steps=8)


def exactly(value: float) -> Estimate:
    return Estimate(value, value - 0.01, value + 0.01)


@pytest.fixture(scope="module")
def findings() -> Findings:
    """Of a model that may skip 38% from .80 on."""
    pairs = [
        Pair(
            similarity=band.low + 0.01,
            concept=f"new {i}",
            parent_concept=f"parent {i}",
            uncached=0.7,
            cached=(0.6, 0.6, 0.7 if band.low >= 0.8 else 0.5, 0.5, 0.4),
            late_start=(0.6,) * 5,
            fewer_steps=(0.65,) * 5,
            random_parent=(0.3,) * 5,
        )
        for band in BINS
        for i in range(10)
    ]
    fit = fit_levels(pairs, SETTINGS.skips, 0.98)
    skip = SETTINGS.skips[2]
    return Findings(
        source={"model": "toy"},
        settings=SETTINGS,
        alpha=0.98,
        curve=(CurvePoint(4, 0.68, exactly(0.97)), CurvePoint(5, 0.7, exactly(1.0)), CurvePoint(8, 0.7, exactly(1.0))),
        fit=fit,
        levels=tuple(report_levels(pairs, fit.levels, SETTINGS.skips)),
        bins=tuple(report_bins(pairs, SETTINGS.skips)),
        reseed=(ReseedPoint(13, exactly(0.95)), ReseedPoint(25, exactly(0.8))),
        drift=(
            (
                ChainSetting(skip, Band(0.8, 1.0)),
                (DepthPoint(1, 9, exactly(1.0), exactly(0.0)), DepthPoint(2, 9, exactly(0.9), exactly(-0.05))),
            ),
        ),
    )


def test_serving_reads_what_was_written(findings: Findings, tmp_path: Path) -> None:
    path = tmp_path / "levels.json"
    path.write_text("older")
    write_levels(path, build_document(findings))
    assert read_levels(path) == Levels((Level(38, 0.8),), reseed_skip_percent=13)
    assert [p.name for p in tmp_path.iterdir()] == ["levels.json"]


def test_the_file_holds_what_it_rests_on(findings: Findings) -> None:
    facts = build_document(findings)["calibration"]
    assert facts["smallestSteps"]["steps"] == 5
    assert facts["tests"][0]["result"].startswith("may lose more than 2.0%")
    assert facts["heldOut"][0]["similarity"] == "0.80-1.00"
    assert facts["heldOut"][0]["earned"] is True
    assert [point["depth"] for point in facts["drift"][0]["byDepth"]] == [1, 2]


def test_an_infinite_bound_is_written_as_null(findings: Findings) -> None:
    unbounded = replace(findings, curve=(CurvePoint(8, 0.7, Estimate(1.0, -math.inf, math.inf)),))
    text = json.dumps(build_document(unbounded), allow_nan=False)
    assert '"ratio": [1.0, null, null]' in text


def test_the_report_names_levels_cap_drift_and_needless_steps(findings: Findings) -> None:
    report = build_report(findings)
    assert "the smallest N that keeps 99% is 5" in report
    assert "You ask for 8 steps, but 5 already keep 99%" in report
    assert "| 38%  | 0.80 |" in report
    assert "at most 13% may be skipped" in report
    lines = [line for line in report.splitlines() if line.startswith("| 38%") and line.endswith("|")]
    assert lines[-1].rstrip(" |").endswith("yes")  # depth 2 is worse than a parent from noise


@pytest.mark.parametrize(("steps", "advice"), [(5, ""), (4, "needs 5"), (8, "saves 38%")])
def test_steps_are_advised_both_ways(findings: Findings, steps: int, advice: str) -> None:
    said = steps_advice(replace(findings, settings=replace(SETTINGS, steps=steps)))
    assert advice in said
    assert bool(said) == bool(advice)


@pytest.mark.parametrize(("name", "begin"), [("p.png", b"\x89PNG"), ("p.svg", b"<?xml")])
def test_the_plot_is_drawn(findings: Findings, tmp_path: Path, name: str, begin: bytes) -> None:
    write_plot(tmp_path / name, findings)
    assert (tmp_path / name).read_bytes().startswith(begin)
