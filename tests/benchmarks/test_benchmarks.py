"""The benchmarks run, their stream follows the log, and their tables add up. Never how fast anything is."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # `benchmarks` is not installed

from benchmarks import soak, stream  # noqa: E402  # needs the line above
from benchmarks.comparison import statistics  # noqa: E402
from benchmarks.comparison.rows import BYPASS, CONTROLS, EXACT, FEWER, OURS, ROWS, STOCK  # noqa: E402

pytestmark = pytest.mark.timeout(300)  # a whole run loads torch and the model in processes of its own


def run_benchmark(name: str, *arguments: str) -> str:
    """What it printed; it must end well."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / name), *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_benchmark_of_comparisons_runs() -> None:
    assert "q_c - q_u" in run_benchmark("shadow.py", "--smoke")


# ---- the stream ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool() -> stream.Pool:
    """Concepts far from each other, and eight wordings of each, near to far. No model: loading one takes long."""
    random = np.random.default_rng(0)
    concepts = np.repeat(random.normal(size=(500, 32)), 8, axis=0)
    keys = concepts + random.uniform(0.1, 1.2, (len(concepts), 1)) * random.normal(size=concepts.shape)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    return stream.Pool(tuple(f"prompt {i}" for i in range(len(keys))), keys.astype(np.float32))


def assert_follows_the_log(pool: stream.Pool) -> None:
    achieved = stream.measure(stream.build_stream(pool, stream.StreamOptions(requests=240, seed=0)))
    assert achieved.similarities == pytest.approx(stream.SIMILARITIES, abs=0.03)
    assert achieved.repeat_share == pytest.approx(stream.REPEAT_SHARE, abs=0.04)


def test_the_stream_follows_the_log(pool: stream.Pool) -> None:
    assert_follows_the_log(pool)


@pytest.mark.slow
def test_a_stream_of_the_bundled_models_prompts_follows_the_log() -> None:
    assert_follows_the_log(stream.build_pool(stream.load_bundled(), 300, seed=0))


def test_the_stream_is_the_same_for_the_same_seed(pool: stream.Pool) -> None:
    one, two = (stream.build_stream(pool, stream.StreamOptions(60, seed=3)) for _ in range(2))
    assert [(r.prompt, r.seed) for r in one.requests] == [(r.prompt, r.seed) for r in two.requests]
    other = stream.build_stream(pool, stream.StreamOptions(60, seed=4))
    assert [r.prompt for r in one.requests] != [r.prompt for r in other.requests]


def test_repeats_are_what_they_say(pool: stream.Pool) -> None:
    requests = stream.build_stream(pool, stream.StreamOptions(240, seed=1, repeat_share=0.4)).requests
    repeats = [r for r in requests if r.repeats is not None]
    assert {r.same_seed for r in repeats} == {True, False}
    for repeat in repeats:
        assert repeat.repeats is not None
        earlier = requests[repeat.repeats]
        assert earlier.prompt == repeat.prompt
        assert (earlier.seed == repeat.seed) is repeat.same_seed
    fresh = [r.prompt for r in requests if r.repeats is None]
    assert len(set(fresh)) == len(fresh)


def test_a_small_pool_ends_in_repeats(pool: stream.Pool) -> None:
    few = stream.Pool(pool.prompts[:5], pool.keys[:5])
    assert len(stream.build_stream(few, stream.StreamOptions(20)).requests) == 20


def test_every_prompt_is_in_the_models_form() -> None:
    concepts = [("apple", ("fruit", "red", "apple")), ("bat", ())]
    prompts = stream.build_prompts(concepts, 100, seed=0)
    assert set(prompts) == {
        f"{head}, {style} style"
        for style in stream.STYLES
        for head in ("apple", "an apple", "apple, fruit", "apple, red", "apple, fruit, red", "bat", "a bat")
    }


# ---- the arithmetic ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("total", "requests"), [(19, 4), (8, 8), (64, 8), (50, 7)])
def test_shared_steps_add_up(total: int, requests: int) -> None:
    shared = statistics.share_steps(total, requests, 8, np.random.default_rng(0))
    assert sum(shared) == total
    assert max(shared) - min(shared) <= 1


@pytest.mark.parametrize(("total", "requests"), [(3, 4), (33, 4)])
def test_steps_that_cannot_be_shared(total: int, requests: int) -> None:
    with pytest.raises(ValueError, match="cannot be shared"):
        statistics.share_steps(total, requests, 8, np.random.default_rng(0))


def test_a_paired_interval_is_narrow_where_the_pairs_agree() -> None:
    scores = np.random.default_rng(0).random(100)
    agreeing = statistics.ratio_of_means(scores * 1.1, scores, 200)
    assert (agreeing.low, agreeing.value, agreeing.high) == pytest.approx((1.1, 1.1, 1.1))
    shuffled = statistics.ratio_of_means(np.random.default_rng(1).permutation(scores), scores, 200)
    assert shuffled.low < 1 < shuffled.high


def test_distance_of_pictures() -> None:
    black, grey = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 30, np.uint8)
    assert statistics.pairwise_rms([black, grey, black]) == pytest.approx(20)


@pytest.mark.parametrize("kib_per_request", [0.0, 3.0])
def test_the_slope_of_a_line(kib_per_request: float) -> None:
    noise = np.random.default_rng(0).normal(0, 5, 2000)
    slope = soak.fit_slope([1000 + kib_per_request * i + noise[i] for i in range(2000)])
    assert slope.value == pytest.approx(1000 * kib_per_request, abs=5)
    assert slope.low <= slope.value <= slope.high


# ---- whole runs ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict[str, Any]]]:
    """One smoke run: its output, and its passes from the JSON."""
    path = tmp_path_factory.mktemp("bench") / "figures.json"
    printed = run_benchmark("serving.py", "--smoke", "--json", str(path))
    return printed, json.loads(path.read_text())["passes"]


def rows_of(one_pass: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in one_pass["rows"]}


def test_every_row_is_there(smoke: tuple[str, list[dict[str, Any]]]) -> None:
    printed, passes = smoke
    assert [(p["steps"], p["stream"]) for p in passes] == [(4, "first-seen"), (4, "replay")]
    assert set(rows_of(passes[0])) == set(ROWS)
    assert all(printed.count(f"│ {name} ") >= 2 for name in ROWS)
    assert "CLIPScore / BYPASS" in printed
    assert "of stock's time" in printed


def test_the_controls_run_what_ours_ran(smoke: tuple[str, list[dict[str, Any]]]) -> None:
    for one_pass in smoke[1]:
        rows = rows_of(one_pass)
        ours = rows[OURS]["steps_run"]
        assert {name: rows[name]["steps_run"] for name in CONTROLS if name in rows} == {
            name: ours for name in CONTROLS if name in rows
        }


def test_sums_agree(smoke: tuple[str, list[dict[str, Any]]]) -> None:
    for one_pass in smoke[1]:
        rows, total = rows_of(one_pass), one_pass["steps"] * one_pass["requests"]
        for row in rows.values():
            assert row["steps_saved_ratio"] == pytest.approx(1 - row["steps_run"] / total)
            assert row["exact"] + row["approximate"] <= one_pass["requests"]
        assert rows[STOCK]["steps_run"] == rows[BYPASS]["steps_run"] == total
        assert rows[EXACT]["approximate"] == 0
        assert sum(level["requests"] for level in one_pass["levels"]) == rows[OURS]["approximate"]


def test_bypass_draws_what_stock_draws(smoke: tuple[str, list[dict[str, Any]]]) -> None:
    for one_pass in smoke[1]:
        assert one_pass["identical"] == one_pass["requests"]
        assert rows_of(one_pass)[STOCK]["quality"]["value"] == 1.0


def test_the_replay_runs_nothing(smoke: tuple[str, list[dict[str, Any]]]) -> None:
    """The very same requests, and nothing was evicted: ours and an exact-match cache are equal, and so it says."""
    printed, (first, replay) = smoke
    assert rows_of(replay)[OURS]["exact"] == replay["requests"]
    assert rows_of(replay)[EXACT]["exact"] == replay["requests"]
    assert rows_of(first)[OURS]["exact"] < first["requests"]
    assert FEWER not in rows_of(replay)
    assert "replay: `ours` saves no more than `exact-match`" in printed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_short_soak_is_flat(tmp_path: Path) -> None:
    """Random in all that callers choose. Memory moves in steps of megabytes: tests/serving/test_bounded.py counts."""
    path = tmp_path / "soak.json"
    printed = run_benchmark("soak.py", "--requests", "240", "--warm-up", "160", "--json", str(path))
    figures = json.loads(path.read_text())
    assert sum(figures["results"].values()) == 400
    assert len(figures["samples"]) == 240
    assert "RSS slope" in printed
    assert _finite([figures["slope"]["low"], figures["slope"]["value"], figures["slope"]["high"]])
    first, last = figures["first"], figures["last"]
    assert last["rss_kib"] < 1.05 * first["rss_kib"]
    assert last["descriptors"] <= first["descriptors"] + 4  # connections in flight
    assert last["threads"] <= first["threads"] + 2  # asyncio's own pool fills slowly


def _finite(values: Sequence[float]) -> bool:
    return all(math.isfinite(v) for v in values)
