"""Foreign YAML and JSON: what they may cost is bounded by what they weigh."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from diffcache_core.documents import MAX_BYTES, MAX_DEPTH, DocumentError, parse_json, parse_yaml, read_document


def bomb(levels: int) -> str:
    """Each level holds the one before nine times."""
    names = [f"x{level}" for level in range(levels)]
    lines = [
        f"{name}: &{name} [{','.join([f'*x{level - 1}' if level else 'lol'] * 9)}]" for level, name in enumerate(names)
    ]
    return "\n".join([*lines, f"kind: DiffusionCache\nspec: {{model: *{names[-1]}}}\n"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bomb(9), "characters once its aliases are written out"),
        (f"a: &a {'x' * (MAX_BYTES // 2)}\nb: [*a, *a]", "characters once its aliases are written out"),
        (bomb(9).replace("[", "{<<: [").replace("]", "]}").replace("lol", "{a: 1}"), "aliases are written out"),
        ("a: &a [*a]", "a block that contains itself"),
        ("a: &a {<<: *a}", "a block that contains itself"),
        ("[" * 100_000, "blocks within blocks"),
        ("{a: " * 100_000, "blocks within blocks"),
        ("- " * 100_000, "blocks within blocks"),
        ("? " * 100_000, "blocks within blocks"),
        ("x" * (MAX_BYTES + 1), "has more than 524,288 bytes"),
        ("password: hunter2\n  x: [", "mapping values are not allowed"),
        ("a: !!bool x", "is not YAML"),
        ("a: !!timestamp x", "is not YAML"),
        ("a: !!python/object/apply:os.getpid []", "is not YAML"),
        ("a: \x1b[31m", "special characters are not allowed"),
        ('{"\\e[31m": 1, "\\e[31m": 2}', r"x1b[31m' stands there twice"),
    ],
    ids=lambda text: text[:20].replace("\x1b", "ESC") if isinstance(text, str) else None,
)  # fmt: skip
def test_yaml_beyond_the_bounds_is_refused(text: str, words: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_yaml(text, "cache.yaml")
    assert "cache.yaml" in str(caught.value)
    assert words in str(caught.value)
    assert str(caught.value).isprintable()
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &a [1]\nb: [*a, *a]", {"a": [1], "b": [[1], [1]]}),
        ("x: {b: &b {<<: {k: 1}, k: 2}}\nc: {<<: *b}", {"x": {"b": {"k": 2}}, "c": {"k": 2}}),
        ("a: 1:30", {"a": "1:30"}),
        ("a: 1:30.5", {"a": "1:30.5"}),
        (f"a: {'9' * 5000}", {"a": "9" * 5000}),
        ("[0x10, 010, 1_000, 1.5, .inf, -3]", [16, 8, 1000, 1.5, float("inf"), -3]),
        ("[" * MAX_DEPTH + "]" * MAX_DEPTH, None),
    ],
)
def test_yaml_within_the_bounds_is_read(text: str, value: object) -> None:
    (document,) = parse_yaml(text, "cache.yaml")
    assert value is None or document == value


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{", "", "x" * (MAX_BYTES + 1), "nul\x1b"])
def test_json_beyond_the_bounds_is_refused(text: str) -> None:
    with pytest.raises(DocumentError, match=r"levels\.json"):
        parse_json(text, "levels.json")


def test_a_file_is_not_read_beyond_the_bound(tmp_path: Path) -> None:
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as file:
        file.truncate(2**40)  # without a block on the disk
    for path, words in (
        (huge, "has more than"),
        (Path("/dev/zero"), "has more than"),
        (tmp_path, "Is a directory"),
        (tmp_path / "none\x1b[2J", "none\\x1b[2J: No such file"),
    ):
        with pytest.raises(DocumentError) as caught:
            read_document(path)
        assert words in str(caught.value)
    (tmp_path / "latin").write_bytes(b"\xff")
    with pytest.raises(DocumentError, match="UTF-8"):
        read_document(tmp_path / "latin")


@pytest.mark.parametrize("command", ["render", "up", "simulate-loops"])
def test_a_bomb_costs_no_memory(tmp_path: Path, command: str) -> None:
    manifest = tmp_path / "bomb.yaml"
    manifest.write_text(bomb(9))
    assert manifest.stat().st_size < 600

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))

    done = subprocess.run(
        [sys.executable, "-m", "diffcache.main", command, "-f", str(manifest)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "aliases are written out" in done.stderr
