"""The local tuner, on the metrics of a serving process: what it counts, decides, writes and remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffcache_core.cache.resume import Level
from diffcache_core.generation import Result
from diffcache_core.names import MOMENTS, SHADOW_MULTIPLES
from diffcache_core.resource.manifest import parse_manifest
from diffcache_core.resource.spec import DiffusionCache
from diffcache_core.resource.status import TuningStatus
from diffcache_core.resource_to_config import Host, build_serving_config
from diffcache_core.serving_config import ListenConfig, ServingConfig
from diffcache_core.tuning.record import RECORD_FILE, based_on, followed, record_for
from diffcache_core.tuning.tuner import COOL_DOWN, MIN_REQUESTS, PairSums
from diffcache_serving.config_file import read_config_file
from diffcache_serving.metrics import PHASES, Metrics
from diffcache_serving.tuning.counters import Counters, batch_between, window_between
from diffcache_serving.tuning.loop import LOOK_SECONDS, LocalTuner
from diffcache_serving.tuning.record_file import read_record, write_record

N = 8
MIB = 2**20
START = 1_700_000_000.0
OWN_LEVELS = (Level(25, 0.7), Level(50, 0.9))
MANIFEST = """
apiVersion: diffcache.io/v1alpha1
kind: DiffusionCache
metadata: {{name: test}}
spec:
  model: {{source: "bundled://emoji"}}
  cache: {{capacity: {capacity}}}
  tuning: {{mode: {mode}, capacity: {{min: 8Mi, max: 512Mi}}}}
"""


def resource(mode: str = "Auto", capacity: str = "64Mi") -> DiffusionCache:
    return parse_manifest(MANIFEST.format(mode=mode, capacity=capacity), "test")


class Process:
    """What `diffcache up` starts, as far as the tuner sees it: metrics, a config file, and a way to follow it."""

    def __init__(self, folder: Path, mode: str = "Auto", capacity: str = "64Mi") -> None:
        self.folder, self.resource = folder, resource(mode, capacity)
        self.metrics = Metrics("test")
        self.path = folder / "serving.json"
        self.now = START
        folder.mkdir(parents=True, exist_ok=True)
        record = record_for(self.resource.spec, read_record(folder), self.now)
        config = build_serving_config(self.resource, Host(folder, ListenConfig()), followed(self.resource.spec, record))
        self.path.write_text(config.model_dump_json())
        self.tuner = LocalTuner(self.resource.spec, self.path, folder, self.metrics.registry, OWN_LEVELS)

    @property
    def config(self) -> ServingConfig:
        return read_config_file(self.path).config

    def look(self, after: float = LOOK_SECONDS) -> TuningStatus:
        """The next look; the process has taken over what lies in the file."""
        self.now += after
        self.tuner.look(self.now, self.config.tuning.revision)
        return self.tuner.record

    def answer(self, count: int, skipped: int, shadow_skipped: dict[float, int], seconds: float = 0.2) -> None:
        for _ in range(count):
            self.metrics.answered(Result.APPROXIMATE, dict.fromkeys(PHASES, 0.0), seconds, N, skipped)
        for multiple in SHADOW_MULTIPLES:
            self.metrics.shadow_cache_steps.labels(f"{multiple:g}").inc(N * count)
            self.metrics.shadow_cache_skipped.labels(f"{multiple:g}").inc(shadow_skipped[multiple] * count)


RISING = {0.5: 1, 0.75: 1, 1.0: 2, 1.5: 3, 2.0: 4, 4.0: 6}
"""Steps saved of N by multiple: capacity is worth doubling, and doubling again."""


def test_without_requests_it_is_frozen_and_says_so(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.look()
    record = process.look()
    assert (record.revision, record.capacity, record.levels) == (0, "", [])
    assert record.decision.split(":")[0] in ("NoData", "TooFewSamples")
    assert read_record(tmp_path) == record


def test_auto_grows_the_capacity_through_the_config_file(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.look()
    process.answer(2 * MIN_REQUESTS, 2, RISING)
    record = process.look()
    assert (record.revision, record.capacity, record.window_start) == (1, "128Mi", "")
    assert record.history[0].reason == "Grown"
    config = process.config
    assert (config.cache.capacity_bytes, config.tuning.revision) == (128 * MIB, 1)
    assert process.look().window_start  # followed: a new window begins


def test_what_was_counted_before_a_change_does_not_count_after_it(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.look()
    process.answer(2 * MIN_REQUESTS, 2, RISING)
    process.look()
    process.look()
    record = process.look(after=COOL_DOWN + 1)
    assert record.revision == 1
    assert not record.decision.startswith("Grown")
    process.answer(2 * MIN_REQUESTS, 2, RISING)
    assert (process.look().revision, process.tuner.record.capacity) == (2, "256Mi")


def test_recommend_tells_and_changes_nothing(tmp_path: Path) -> None:
    process = Process(tmp_path, mode="Recommend")
    before = process.config
    process.look()
    process.answer(2 * MIN_REQUESTS, 2, RISING)
    record = process.look()
    assert record.decision.startswith("Grown")
    assert (record.capacity, record.history[0].capacity) == ("128Mi", "128Mi")
    assert process.config == before
    assert len(process.look().history) == 1  # the same advice once


def test_a_shadow_cache_that_is_off_freezes_capacity(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.look()
    process.answer(2 * MIN_REQUESTS, 1, RISING)
    assert process.look().decision.startswith("ShadowCacheOff")
    assert process.config.cache.capacity_bytes == 64 * MIB


def test_a_decision_survives_a_restart_and_figures_begin_anew(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.look()
    process.answer(2 * MIN_REQUESTS, 2, RISING)
    process.look()
    again = Process(tmp_path)
    assert (again.config.cache.capacity_bytes, again.config.tuning.revision) == (128 * MIB, 1)
    again.now = process.now + COOL_DOWN
    record = again.look()
    assert (record.revision, len(record.history)) == (1, 1)
    assert record.window_start != process.tuner.record.window_start


def test_a_crash_between_record_and_config_is_made_good(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.look()
    process.answer(2 * MIN_REQUESTS, 2, RISING)
    spoilt = process.path.read_bytes()
    process.look()
    process.path.write_bytes(spoilt)  # as if it had not been written
    process.look()
    assert process.config.tuning.revision == 1


def test_another_spec_sets_the_record_back(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.look()
    process.answer(2 * MIN_REQUESTS, 2, RISING)
    process.look()
    again = Process(tmp_path, capacity="32Mi")
    assert again.config.cache.capacity_bytes == 32 * MIB
    record = again.look()
    assert (record.revision, record.capacity, record.history[0].reason) == (2, "", "Reset")
    assert record.based_on == based_on(again.resource.spec)
    assert record.window_start  # the process was started with it


@pytest.mark.parametrize("content", ["", "{", '{"revision": "many"}', "[]", "\x00"])
def test_a_spoilt_record_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / RECORD_FILE).write_text(content)
    assert Process(tmp_path).look().revision == 0


def test_a_record_is_written_whole(tmp_path: Path) -> None:
    record = TuningStatus(revision=3, based_on="x", capacity="1Gi")
    write_record(tmp_path, record)
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert [path.name for path in tmp_path.iterdir()] == [RECORD_FILE]


def test_a_folder_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    process = Process(tmp_path / "data")
    process.look()
    process.answer(2 * MIN_REQUESTS, 2, RISING)
    (tmp_path / "data" / (RECORD_FILE + ".new")).mkdir()
    with pytest.raises(OSError, match="directory"):
        process.look()
    assert process.config.cache.capacity_bytes == 64 * MIB


# ---- the figures -----------------------------------------------------------------------------------------------------


def compared(metrics: Metrics, skip: int, similarity: str, c: float, u: float) -> None:
    metrics.quality_pairs.labels(str(skip), similarity).inc()
    for moment, value in zip(MOMENTS, (c, u, c * c, u * u, c * u), strict=True):
        metrics.quality_sum.labels(str(skip), similarity, moment).inc(value)


def test_comparisons_between_two_looks() -> None:
    metrics = Metrics("test")
    compared(metrics, 25, "0.80", 0.5, 0.75)
    first = Counters.read(metrics.registry, 1.0)
    compared(metrics, 25, "0.80", 0.25, 0.5)
    compared(metrics, 50, "0.90", 0.5, 0.5)
    batch = batch_between(first, Counters.read(metrics.registry, 2.0))
    assert (batch.start, batch.end) == (1.0, 2.0)
    assert batch.pairs == {
        (25, 0.8): PairSums(1, 0.25, 0.5, 0.0625, 0.25, 0.125),
        (50, 0.9): PairSums(1, 0.5, 0.5, 0.25, 0.25, 0.25),
    }


def test_the_window_counts_from_its_beginning(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.answer(10, 8, RISING)
    began = Counters.read(process.metrics.registry, 1.0)
    process.answer(4, 2, RISING, seconds=0.2)
    process.metrics.shadow_runs.labels("dropped").inc()
    process.metrics.shadow_runs.labels("compared").inc(3)
    window = window_between(began, Counters.read(process.metrics.registry, 2.0), [])
    assert (window.requests, window.steps, window.steps_skipped, window.measured_ssr) == (4, 32, 8, 0.25)
    assert window.shadow_ssr == {multiple: skipped / N for multiple, skipped in RISING.items()}
    assert (window.shadow_due, window.shadow_dropped, window.newest) == (4, 1, 2.0)
    assert window.p95_seconds == pytest.approx(0.1 + 0.95 * 0.2)  # all four lie between 0.1 and 0.3


def test_nothing_counted_is_nothing_known() -> None:
    nothing = Counters.read(Metrics("test").registry, 1.0)
    window = window_between(nothing, nothing, [])
    assert (window.measured_ssr, window.p95_seconds, window.shadow_ssr) == (None, None, {})
