"""The results of a calibration, and the levels.json made from them. Pure, except the writing."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffcache_serving.calibration.chains import ChainSetting, DepthPoint
from diffcache_serving.calibration.curve import KEPT, CurvePoint, smallest_steps
from diffcache_serving.calibration.fit import MARGIN, Fit
from diffcache_serving.calibration.heldout import Cell
from diffcache_serving.calibration.reseed import KEPT_DISTANCE, ReseedPoint, reseed_skip_percent
from diffcache_serving.calibration.settings import Settings
from diffcache_serving.calibration.statistics import Estimate

_NUMBERS = re.compile(r"\[[-\s\d.,null]*\]")  # intervals, which are written on one line


@dataclass(frozen=True)
class Findings:
    source: Mapping[str, Any]  # what was measured: the record's settings
    settings: Settings
    alpha: float
    curve: tuple[CurvePoint, ...]
    fit: Fit
    levels: tuple[Cell, ...]  # on the held-out half, rising
    bins: tuple[Cell, ...]  # likewise, every skip and bin
    reseed: tuple[ReseedPoint, ...]
    drift: tuple[tuple[ChainSetting, tuple[DepthPoint, ...]], ...]  # by granted level, falling

    @property
    def smallest_steps(self) -> int:
        return smallest_steps(self.curve)

    @property
    def reseed_skip_percent(self) -> int:
        return reseed_skip_percent(self.reseed)


def build_document(findings: Findings) -> dict[str, Any]:
    """Returns the content of levels.json: the levels for serving, and under `calibration` the evidence for them."""
    return {
        "levels": [
            {"skipPercent": level.skip_percent, "similarity": f"{level.similarity:.2f}"}
            for level in findings.fit.levels
        ],
        "reseedSkipPercent": findings.reseed_skip_percent,
        "calibration": {
            **findings.source,
            "alpha": findings.alpha,
            "margin": MARGIN,
            "smallestSteps": {"keeps": KEPT, "steps": findings.smallest_steps},
            "curve": [
                {"steps": p.steps, "quality": round(p.quality, 4), "ratio": _interval(p.ratio)} for p in findings.curve
            ],
            "tests": [
                {
                    "skipPercent": test.skip_percent,
                    "similarity": str(test.band),
                    "pairs": test.pairs,
                    "concepts": test.concepts,
                    "bounds": {
                        "quality": _number(test.quality),
                        "lateStart": _number(test.late_start),
                        "fewerSteps": _number(test.fewer_steps),
                    },
                    "result": test.reason or "passed",
                }
                for test in findings.fit.tests
            ],
            "heldOut": [_cell(cell) for cell in findings.levels],
            "heldOutBins": [_cell(cell) for cell in findings.bins],
            "reseed": {
                "keeps": KEPT_DISTANCE,
                "distanceRatio": [
                    {"skipPercent": p.skip_percent, "ratio": _interval(p.ratio)} for p in findings.reseed
                ],
            },
            "drift": [
                {
                    "skipPercent": setting.skip.percent,
                    "similarity": str(setting.band),
                    "byDepth": [
                        {
                            "depth": p.depth,
                            "chains": p.chains,
                            "qualityRatio": _interval(p.quality_ratio),
                            "againstParentFromNoise": _interval(p.drift),
                        }
                        for p in points
                    ],
                }
                for setting, points in findings.drift
            ],
        },
    }


def write_levels(path: Path, document: Mapping[str, Any]) -> None:
    """Writes the file atomically, because a serving process may read it at any time."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        text = json.dumps(document, indent=1, allow_nan=False)
        file.write(_NUMBERS.sub(lambda found: " ".join(found[0].split()), text) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "skipPercent": cell.skip_percent,
        "similarity": str(cell.band),
        "pairs": cell.pairs,
        "qualityRatio": _interval(cell.quality_ratio),
        "againstLateStart": _interval(cell.late_start),
        "againstFewerSteps": _interval(cell.fewer_steps),
        "againstRandomParent": _interval(cell.random_parent),
        "controlRatios": {name: round(value, 4) for name, value in cell.control_ratios.items()},
        "earned": cell.earned,
    }


def _interval(estimate: Estimate) -> list[float | None]:
    """Returns [value, low, high]. A bound is None if there is only one cluster."""
    return [_number(v) for v in (estimate.value, estimate.low, estimate.high)]


def _number(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
