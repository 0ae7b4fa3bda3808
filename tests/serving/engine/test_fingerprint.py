"""Whatever may change a picture changes the fingerprint; what is unchanged is not read again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from diffcache_serving.engine.fingerprint import MEMORY_FILE, fingerprint

LONG_AGO = 1_000_000_000  # seconds since the epoch


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "unet" / "weights.safetensors").write_bytes(b"v1")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def remembered(data: Path) -> dict[str, list[object]]:
    document: dict[str, list[object]] = json.loads((data / MEMORY_FILE).read_text())
    return document


def remember(model: Path, data: Path, digest: str) -> None:
    """As a start long after the last change leaves it, with `digest` for every file."""
    entries = {}
    for path in model.rglob("*"):
        if path.is_file():
            stat = path.stat()
            state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]
            entries[os.path.realpath(path)] = [*state, digest]
    (data / MEMORY_FILE).write_text(json.dumps(entries))


def test_a_linked_folder_counts(model: Path, tmp_path: Path) -> None:
    """Another link is another model: else v1's pictures would be v2's EXACT hits."""
    parts = tmp_path / "unets"
    for version in ("v1", "v2"):
        (parts / version / "deep").mkdir(parents=True)
        (parts / version / "deep" / "weights.safetensors").write_bytes(version.encode())
    shutil.rmtree(model / "unet")
    digests = set()
    for version in ("v1", "v2"):
        (model / "unet").unlink(missing_ok=True)
        (model / "unet").symlink_to(parts / version)
        digests.add(fingerprint(model))
    assert len(digests) == 2


def test_links_change_nothing_where_the_bytes_are_the_same(model: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    (linked / "unet").mkdir(parents=True)
    (linked / "model_index.json").symlink_to(model / "model_index.json")
    (linked / "unet" / "weights.safetensors").symlink_to(model / "unet" / "weights.safetensors")
    whole = tmp_path / "whole"
    whole.symlink_to(model)
    assert fingerprint(linked) == fingerprint(whole) == fingerprint(model)


def test_links_in_a_circle_and_to_nowhere_end(model: Path) -> None:
    before = fingerprint(model)
    (model / "unet" / "up").symlink_to(model)
    (model / "gone.json").symlink_to(model / "nowhere.json")
    (model / "itself.json").symlink_to(model / "itself.json")
    assert fingerprint(model) == before


def test_what_is_unchanged_is_not_read_again(model: Path, data: Path) -> None:
    plain = fingerprint(model)
    remember(model, data, "ab" * 32)
    assert fingerprint(model, data) != plain, "it read the files"


@pytest.mark.parametrize("change", ["content", "content, time put back", "copy in its place", "link to another"])
def test_what_changed_is_read(change: str, model: Path, data: Path, tmp_path: Path) -> None:
    weights = model / "unet" / "weights.safetensors"
    os.utime(weights, (LONG_AGO, LONG_AGO))
    remember(model, data, "ab" * 32)
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"v2")
    os.utime(other, (LONG_AGO, LONG_AGO))
    if change == "copy in its place":
        other.replace(weights)
    elif change == "link to another":
        weights.unlink()
        weights.symlink_to(other)
    else:
        weights.write_bytes(b"v2")
        if "put back" in change:
            os.utime(weights, (LONG_AGO, LONG_AGO))
    fingerprint(model, data)
    assert "ab" * 32 not in str(remembered(data).get(os.path.realpath(weights)))
    (model / "model_index.json").touch()
    assert fingerprint(model, data) == fingerprint(model)


def test_a_young_file_is_not_remembered(model: Path, data: Path) -> None:
    """A second change in the same tick of the clock would not show."""
    fingerprint(model, data)
    assert not (data / MEMORY_FILE).exists() or remembered(data) == {}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"x": 1}', "[" * 10_000, '{"PATH": [1, 2, 3, 4, 5, "ab"]}', "binary"]
)
def test_a_torn_or_foreign_memory_only_costs_time(text: str, model: Path, data: Path) -> None:
    path = os.path.realpath(model / "model_index.json")
    (data / MEMORY_FILE).write_bytes(b"\xff\x00" if text == "binary" else text.replace("PATH", path).encode())
    assert fingerprint(model, data) == fingerprint(model)


def test_a_memory_that_cannot_be_written_only_costs_time(model: Path, data: Path) -> None:
    for path in model.rglob("*.*"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    (data / MEMORY_FILE).mkdir()
    assert fingerprint(model, data) == fingerprint(model)
    assert fingerprint(model, data / "nowhere") == fingerprint(model)
    assert [path.name for path in data.iterdir()] == [MEMORY_FILE]


def test_the_files_of_another_model_are_forgotten(model: Path, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(model, other)
    remember(model, data, "ab" * 32)
    fingerprint(other, data)
    assert os.path.realpath(model / "model_index.json") not in remembered(data)
