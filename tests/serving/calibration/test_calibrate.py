"""A whole calibration of the bundled model, at its smallest."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from diffcache.main import app
from diffcache_core.resource.manifest import ManifestError
from diffcache_serving.calibration.calibrate import RECORD_FILE, Task, calibrate
from diffcache_serving.calibration.curve import CurvePoint, smallest_steps
from diffcache_serving.calibration.findings import build_document, write_levels
from diffcache_serving.calibration.plot import write_plot
from diffcache_serving.calibration.report import build_report
from diffcache_serving.calibration.reseed import ReseedPoint, reseed_skip_percent
from diffcache_serving.calibration.settings import Settings
from diffcache_serving.calibration.statistics import Estimate
from diffcache_serving.engine.loading import BUNDLED, read_levels

SETTINGS = Settings(
    steps=2, pairs_per_bin=2, curve_prompts=2, curve_at=(3,), reseed_prompts=2, reseed_seeds=2, chains=2
)


class Stopped(Exception):
    pass


class Watch:
    """Counts what is measured, and stops after `limit` items of the stage `at`."""

    def __init__(self, at: str = "", limit: int = -1) -> None:
        self.measured: dict[str, int] = {}
        self._at, self._limit, self._now = at, limit, ""

    def stage(self, name: str, total: int, done: int) -> None:
        self._now = name
        self.measured[name] = 0

    def advance(self, items: int) -> None:
        self.measured[self._now] += items
        if (self._now, self.measured[self._now]) == (self._at, self._limit):
            raise Stopped


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first concepts of the model's own list."""
    with (BUNDLED / "emoji" / "diffcache" / "concepts.tsv").open(encoding="utf-8") as file:
        path = tmp_path_factory.mktemp("prompts") / "concepts.tsv"
        path.write_text("".join(itertools.islice(file, 21)), encoding="utf-8")
    return path


def build_task(prompts: Path, work_dir: Path) -> Task:
    return Task("bundled://emoji", BUNDLED / "emoji-clip", prompts, work_dir, SETTINGS, alpha=0.98, batch=16)


def test_a_stopped_calibration_goes_on_where_it_was(prompts: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        calibrate(build_task(prompts, tmp_path), Watch("pairs", 1))
    rest = Watch()
    findings = calibrate(build_task(prompts, tmp_path), rest)
    assert rest.measured["curve"] == 0
    assert rest.measured["pairs"] >= 1
    size = (tmp_path / RECORD_FILE).stat().st_size
    again = Watch()
    assert calibrate(build_task(prompts, tmp_path), again) == findings
    assert sum(again.measured.values()) == again.measured["keys"]
    assert (tmp_path / RECORD_FILE).stat().st_size == size

    levels = tmp_path / "levels.json"
    write_levels(levels, build_document(findings))
    assert read_levels(levels).table == findings.fit.levels
    facts = json.loads(levels.read_text())["calibration"]
    assert facts["steps"] == 2
    assert [point["steps"] for point in facts["curve"]] == [2, 3]
    assert "Quality over N" in build_report(findings)
    write_plot(tmp_path / "levels.png", findings)
    assert (tmp_path / "levels.png").stat().st_size > 10_000


def point(steps: int, ratio: float) -> CurvePoint:
    return CurvePoint(steps, 0.7 * ratio, Estimate(ratio, ratio, ratio))


def test_the_smallest_n_keeps_the_quality_and_so_do_all_above_it() -> None:
    assert smallest_steps([point(2, 0.8), point(4, 0.995), point(8, 1.0)]) == 4
    assert smallest_steps([point(2, 0.995), point(4, 0.98), point(8, 1.0)]) == 8


def test_the_seed_cap_is_the_last_skip_before_the_distance_shrinks() -> None:
    points = [ReseedPoint(s, Estimate(r, r, r)) for s, r in ((13, 1.0), (25, 0.95), (38, 0.89), (50, 0.91))]
    assert reseed_skip_percent(points) == 25
    assert reseed_skip_percent(points[2:]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "bundled://none"}, "holds no model_index.json"),
        ({"model": f"file://{BUNDLED / 'emoji'}"}, "give the folder of a CLIPModel"),
        ({"scorer": "/nowhere"}, "--scorer /nowhere holds no readable config.json"),
        ({"prompts": "/nowhere.tsv"}, "--prompts /nowhere.tsv: No such file"),
        ({"plot": "plot.gif"}, "must end in one of .png"),
        ({"output": "/proc/levels.json"}, "/proc/levels.json cannot be written"),
        ({"output": "/"}, "is a folder: name a file in it"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_measured(
    options: dict[str, str], message: str, tmp_path: Path
) -> None:
    chosen = {"work-dir": str(tmp_path), "output": str(tmp_path / "levels.json"), **options}
    arguments = [part for name, value in chosen.items() for part in (f"--{name}", value)]
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["calibrate", *arguments])
    said: Any = str(result.exception) if isinstance(result.exception, ManifestError) else result.output
    assert result.exit_code != 0
    assert message in said
    assert not (tmp_path / RECORD_FILE).exists()


def test_the_command_line_starts_without_heavy_libraries() -> None:
    code = "import sys, diffcache.main; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
