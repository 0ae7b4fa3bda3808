"""`diffcache simulate-loops`: made-up and given data, what it prints and draws, and bad input."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from diffcache.commands.simulate_loops import DEFAULT_MANIFEST
from diffcache_core.resource.manifest import parse_manifest

Diffcache = Callable[..., CompletedProcess[str]]
SUBJECTS = ("lighthouse", "teapot", "owl", "tram", "glacier")


@pytest.fixture
def logs(tmp_path: Path) -> tuple[Path, Path]:
    """Two hours of requests, and prompts of our own: five subjects in several wordings, some repeated."""
    arrivals = tmp_path / "arrivals.csv"
    arrivals.write_text("time,steps\n" + "".join(f"{60 * i},{20 + i % 3}\n" for i in range(120)))
    prompts = tmp_path / "prompts.csv.gz"
    rows = [f"a {SUBJECTS[i % 5]} at {i % 7} o'clock,{0.5 + (i % 50) / 100:.2f}" for i in range(100)]
    prompts.write_bytes(gzip.compress(("prompt,similarity\n" + "\n".join(rows)).encode()))
    return arrivals, prompts


def test_given_logs(diffcache: Diffcache, logs: tuple[Path, Path], tmp_path: Path) -> None:
    arrivals, prompts = logs
    picture = tmp_path / "loops.png"
    done = diffcache(
        "simulate-loops", "--arrivals", str(arrivals), "--similarities", str(prompts), "-o", str(picture), "--days", "1"
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    names = (
        "ours",
        "tuned levels, utilisation",
        "tuned levels, requests",
        "first levels, backlog",
        "no cache, backlog",
    )
    for name in names:
        assert sum(line.startswith(name) for line in lines) == 1
    row = {line.split("  ")[0]: line.split() for line in lines if "levels, backlog" in line or "no cache, b" in line}
    saved = {name: float(cells[-2]) for name, cells in row.items() if name.startswith("first")}
    assert all(0 < value < 1 for value in saved.values())
    assert "120 arrivals, 100 prompts: the first 100 arrivals are used" in done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"plot: {picture}" in done.stdout


def test_without_any_data(diffcache: Diffcache) -> None:
    words = ("simulate-loops", "--days", "1", "--requests-per-day", "60", "--seed")
    one, other = diffcache(*words, "3"), diffcache(*words, "4")
    assert one.returncode == other.returncode == 0, one.stderr
    assert one.stdout != other.stdout


def test_bounds_come_from_the_manifest(diffcache: Diffcache, logs: tuple[Path, Path], tmp_path: Path) -> None:
    manifest = tmp_path / "cache.yaml"
    manifest.write_text(
        DEFAULT_MANIFEST.replace("minReplicas: 1", "minReplicas: 3").replace("mode: Auto", "mode: Disabled")
    )
    done = diffcache("simulate-loops", "-f", str(manifest), "--arrivals", str(logs[0]), "--similarities", str(logs[1]))
    assert done.returncode == 0, done.stderr
    assert "0 decisions; comparisons took 0.0% of the steps" in done.stdout
    ours = next(line for line in done.stdout.splitlines() if line.startswith("ours"))
    hours = float(ours.removeprefix("ours: tuned levels and capacity, backlog").split()[0])
    assert hours >= 3 * 99 / 60  # three pods for the 99 minutes from the first arrival to the last


def test_our_manifest_is_valid() -> None:
    spec = parse_manifest(DEFAULT_MANIFEST).spec
    assert (spec.autoscaling.max_replicas or 1) > 1
    assert spec.tuning.mode == "Auto"


@pytest.mark.parametrize(
    ("option", "content", "words"),
    [
        ("--arrivals", b"when\n1\n", "needs a column called time"),
        ("--arrivals", b"time\nsoon\n", "line 2: time is 'soon'"),
        ("--arrivals", b"time\n", "holds no requests"),
        ("--arrivals", b"\xff\xfe\x00", "is not a text file in UTF-8"),
        ("--arrivals", gzip.compress(b"time\n1\n" * 50, mtime=0)[:-9], "is a damaged gzip file"),
        ("--similarities", b"prompt\na\n", "needs a column called similarity"),
        ("--similarities", b"prompt,similarity\na,2\nb,0\n", "must be a cosine"),
        ("--file", b"a: [", "is not YAML"),
    ],
)
def test_files_that_cannot_be_used(
    option: str, content: bytes, words: str, diffcache: Diffcache, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    done = diffcache("simulate-loops", option, str(path), "--requests-per-day", "50", "--days", "1")
    assert done.returncode == 2
    assert words in done.stderr
    assert str(path) in done.stderr


@pytest.mark.parametrize("option", ["--arrivals", "--similarities", "--file"])
def test_files_that_are_not_there(option: str, diffcache: Diffcache, tmp_path: Path) -> None:
    done = diffcache("simulate-loops", option, str(tmp_path / "none"))
    assert done.returncode == 2
    assert "No such file" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--output", "loops.txt"), "--output"),
        (("--output", "/nowhere/at/all/loops.png"), "is no folder"),
        (("--batch", "2", "--batch-gain", "3"), "--batch-gain"),
        (("--seconds-per-step", "0"), "--seconds-per-step"),
    ],
)
def test_options_that_cannot_be(options: tuple[str, ...], words: str, diffcache: Diffcache) -> None:
    done = diffcache("simulate-loops", *options)
    assert done.returncode == 2
    assert words in done.stderr
