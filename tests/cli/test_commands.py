"""The commands as a user types them, against a server started by `diffcache up`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from PIL import Image

Diffcache = Callable[..., CompletedProcess[str]]


@pytest.fixture
def generate(up: Any, diffcache: Diffcache, tmp_path: Path) -> Diffcache:
    def call(prompt: str, *options: str, image: str = "x.png") -> CompletedProcess[str]:
        return diffcache("generate", prompt, "-o", str(tmp_path / image), "--server", up.server, *options)

    return call


def ok(done: CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_way_of_the_readme(generate: Diffcache, up: Any, diffcache: Diffcache, tmp_path: Path) -> None:
    line = ok(generate("red apple, noto style", "--seed", "7"))
    assert line.startswith("MISS  skipped 0/8 steps")
    assert "seed 7" in line
    assert Image.open(tmp_path / "x.png").size == (64, 64)
    like = ok(generate("red apple, flat style"))
    assert like.startswith("APPROXIMATE  similarity 0.9")
    again = ok(generate("red apple, noto style", "--seed", "7"))
    assert again.startswith("EXACT  skipped 8/8 steps")
    bypass = ok(generate("red apple, flat style", "--cache-mode", "bypass"))
    assert bypass.startswith("BYPASS  skipped 0/8")


def test_json_explain_and_stream(generate: Diffcache, up: Any, diffcache: Diffcache) -> None:
    facts = json.loads(ok(generate("pizza, noto style", "--seed", "1", "--output", "json")))
    assert (facts["result"], facts["seed"], facts["steps"], facts["model"]) == ("MISS", 1, 8, "emoji")
    explained = ok(generate("pizza, noto style", "--seed", "1", "--explain"))
    assert facts["entry_id"] in explained
    assert "denoise" in explained
    streamed = generate("pizza, noto style", "--seed", "2", "--steps", "3", "--stream")
    assert "seed 2" in ok(streamed)
    assert "3/3" in streamed.stderr


def test_tokens_that_were_dropped_are_told(generate: Diffcache) -> None:
    options = ("cat " * 100, "--negative-prompt", "dog " * 100, "--steps", "1")
    facts = json.loads(ok(generate(*options, "--output", "json")))
    assert facts["prompt_tokens_dropped"] == facts["negative_prompt_tokens_dropped"] > 0
    dropped = f"its last {facts['prompt_tokens_dropped']} tokens were dropped"
    assert generate(*options).stderr.count(dropped) == 2
    assert "dropped" not in generate("cat", "--steps", "1").stderr
    assert "prompt tokens dropped" in ok(generate("cat", "--steps", "1", "--explain"))


@pytest.mark.parametrize(("name", "kind"), [("a.webp", "WEBP"), ("b.jpg", "JPEG"), ("c.PNG", "PNG")])
def test_the_file_name_chooses_the_format(name: str, kind: str, generate: Diffcache, tmp_path: Path) -> None:
    ok(generate("cat face, flat style", "--seed", "1", "--steps", "1", image=name))
    assert Image.open(tmp_path / name).format == kind


def test_stats_ls_show_purge(generate: Diffcache, up: Any, diffcache: Diffcache) -> None:
    entry = json.loads(ok(generate("lion, flat style", "--tenant", "zoo", "--output", "json")))["entry_id"]
    assert "steps saved" in ok(diffcache("stats", "--admin", up.admin))
    stats = json.loads(ok(diffcache("stats", "--admin", up.admin, "--output", "json")))
    assert int(stats["requests"]) >= 1
    assert entry in ok(diffcache("cache", "ls", "--admin", up.admin, "--tenant", "zoo"))
    (listed,) = json.loads(ok(diffcache("cache", "ls", "--admin", up.admin, "--contains", "LION", "--output", "json")))
    assert listed["prompt"] == "lion, flat style"
    assert "lion, flat style" in ok(diffcache("cache", "show", entry, "--admin", up.admin))
    assert json.loads(ok(diffcache("cache", "show", entry, "--admin", up.admin, "--output", "json")))["id"] == entry
    assert "purged 1 entries" in ok(diffcache("cache", "purge", "--tenant", "zoo", "--admin", up.admin))
    gone = diffcache("cache", "show", entry, "--admin", up.admin)
    assert (gone.returncode, "there is no entry" in gone.stderr) == (1, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", "0"], ["steps", "from 1 to 1000"]),
        (["--steps", "-1"], ["steps", "-1"]),
        (["--steps", "1000000"], ["steps", "1000"]),
        (["--steps", "many"], ["--steps", "integer"]),
        (["--width", "63"], ["width", "try 64"]),
        (["--seed", "-5"], ["seed", "-5"]),
        (["--guidance", "nan"], ["guidance"]),
        (["--tenant", "No Tenant"], ["x-diffcache-tenant"]),
        (["--mode", "sometimes"], ["--mode", "must be one of default, bypass, refresh, read-only, is 'sometimes'"]),
        (["--cache-mode", ""], ["--cache-mode", "read-only"]),
        (["--guidance", "much"], ["--guidance", "must be a valid number "]),
        (["--steps", "1" * 5000], ["--steps", "must be an integer of fewer digits"]),
        (["--output", "xml"], ["--output': 'xml' is not one of 'table', 'json'"]),
        (["--max-skip", "500"], ["max_skip_percent"]),
        (["--ca", "/nowhere.pem"], ["--ca-certificate", "/nowhere.pem"]),
        (["-o", "x.gif"], ["--image", ".png"]),
        (["-o", "/nowhere/at/all/x.png"], ["--image", "make it first"]),
        (["--timeout", "inf"], ["--timeout", "above 0"]),
        (["--timeout", "-1"], ["--timeout", "above 0"]),
        (["--server", ""], ["server", "HOST:PORT"]),
        (["--tenant", "Ünï"], ["x-diffcache-tenant"]),
        (["--output", "xml"], ["--output", "json"]),
    ],
    ids=" ".join,
)
def test_a_bad_option_is_named_with_the_remedy(options: list[str], words: list[str], generate: Diffcache) -> None:
    refused(generate("cat", *options), *words)


def refused(done: CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    assert not re.search("Value error|Input should|[Uu]nable to parse", done.stderr), done.stderr
    for word in words:
        assert word in done.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    "prompt", ["", "x" * 100_000, "a\x07b", "bell \udcff"], ids=["empty", "huge", "bell", "surrogate"]
)
def test_a_bad_prompt_is_refused(prompt: str, generate: Diffcache) -> None:
    refused(generate(prompt), "prompt")


def test_bad_admin_requests(up: Any, diffcache: Diffcache) -> None:
    refused(diffcache("cache", "purge", "--admin", up.admin), "exactly one")
    refused(diffcache("cache", "purge", "--all", "--tenant", "a", "--admin", up.admin), "exactly one")
    refused(diffcache("cache", "show", "", "--admin", up.admin), "must not be empty")
    refused(diffcache("cache", "ls", "--contains", "\udcff", "--admin", up.admin), "not valid Unicode")
    refused(diffcache("cache", "ls", "--limit", "0", "--admin", up.admin), "--limit")


def test_a_prompt_is_listed_as_it_is(generate: Diffcache, up: Any, diffcache: Diffcache) -> None:
    ok(generate("[/red] [bold]hi[/bold] :smile:", "--tenant", "markup", "--steps", "1"))
    ok(generate("two\nlines", "--tenant", "markup", "--steps", "1"))
    listed = ok(diffcache("cache", "ls", "--tenant", "markup", "--admin", up.admin))
    assert "[/red] [bold]hi[/bold] :smile:" in listed
    assert "two\\nlines" in listed


def test_no_server_is_said_plainly(diffcache: Diffcache, tmp_path: Path) -> None:
    for words in (
        ["generate", "cat", "-o", str(tmp_path / "x.png"), "--server", "127.0.0.1:1"],
        ["stats", "--admin", "127.0.0.1:1"],
        ["stats", "--admin", "nobody.invalid:1"],
    ):
        done = diffcache(*words)
        assert done.returncode == 1
        assert "is `diffcache up -f MANIFEST` running" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mode", ["read-only", "READ-ONLY", "read_only", "Bypass"])
def test_a_cache_mode_as_it_is_typed(mode: str, generate: Diffcache) -> None:
    assert ok(generate("cat", "--steps", "1", "--cache-mode", mode)).startswith(("MISS", "BYPASS", "APPROXIMATE"))


def test_no_answer_in_time_is_said_with_the_remedy(generate: Diffcache, diffcache: Diffcache) -> None:
    late = generate("cat", "--steps", "1000", "--timeout", "0.05", "--cache-mode", "bypass")
    assert late.returncode == 1
    assert "DEADLINE_EXCEEDED: no picture came in time: allow more seconds (--timeout" in late.stderr
    assert "|read-only]" in ok(diffcache("generate", "--help"))


@pytest.mark.parametrize(
    "words",
    [
        ["calibrate", "--steps", "1"],
        ["calibrate", "--scheduler", "x"],
        ["up", "-f", "x", "--port", "99999999"],
        ["simulate-loops", "--days", "x"],
        ["cache", "ls", "--limit", "x"],
        ["cache", "ls", "--output", "x"],
    ],
    ids=" ".join,
)
def test_no_command_refuses_in_the_words_of_a_library(words: list[str], diffcache: Diffcache) -> None:
    refused(diffcache(*words), words[-2])


def test_version_and_help(diffcache: Diffcache) -> None:
    assert ok(diffcache("--version")).strip() == "0.1.0"
    for command in (["up"], ["generate"], ["stats"], ["cache"], ["cache", "purge"], ["calibrate"]):
        assert "Usage" in ok(diffcache(*command, "--help"))
