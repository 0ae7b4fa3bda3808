"""Folders of fetched models: the one that is served stays, the others go when their time has passed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diffcache_serving.engine.sources import COMPLETE_MARKER, hub_folder, model_folder, model_name
from diffcache_serving.model_folders import RETIRED_MARKER, lock_folders, remove_retired, retire_others, unretire
from diffcache_serving.values.errors import ModelError


def fetched(data_dir: Path, source: str, revision: str = "") -> Path:
    folder = hub_folder(data_dir, source, revision)
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / COMPLETE_MARKER).write_text("c0ffee\n")
    return folder


def test_who_is_not_served_goes_after_its_time(tmp_path: Path) -> None:
    one, two = fetched(tmp_path, "a/one"), fetched(tmp_path, "a/two", "v1")
    retire_others(tmp_path, one)
    os.utime(two / RETIRED_MARKER, (1000, 1000))
    retire_others(tmp_path, one)  # another start does not lengthen its time
    remove_retired(tmp_path, before=999)
    assert two.exists()
    remove_retired(tmp_path, before=1000)
    assert not two.exists()
    assert one.exists()


def test_who_is_served_again_stays(tmp_path: Path) -> None:
    one, two = fetched(tmp_path, "a/one"), fetched(tmp_path, "a/two")
    retire_others(tmp_path, one)
    retire_others(tmp_path, two)
    remove_retired(tmp_path, before=1e12)
    assert (one.exists(), two.exists()) == (False, True)


def test_a_download_is_not_disturbed(tmp_path: Path) -> None:
    one, two = fetched(tmp_path, "a/one"), fetched(tmp_path, "a/two")
    retire_others(tmp_path, one)
    with lock_folders(tmp_path, wait=True):
        remove_retired(tmp_path, before=1e12)
        unretire(two)
    remove_retired(tmp_path, before=1e12)
    assert two.exists()


def test_a_model_that_lies_elsewhere_is_not_touched(tmp_path: Path) -> None:
    """A pod's root is read-only."""
    one, bundled = fetched(tmp_path, "a/one"), tmp_path / "bundled"
    bundled.mkdir()
    (bundled / RETIRED_MARKER).touch()
    retire_others(tmp_path, bundled)
    remove_retired(tmp_path, before=1e12)
    assert not one.exists()
    assert (bundled / RETIRED_MARKER).exists()


def test_without_fetched_models_there_is_nothing_to_do(tmp_path: Path) -> None:
    retire_others(tmp_path, tmp_path / "bundled")
    remove_retired(tmp_path, before=1e12)
    assert list(tmp_path.iterdir()) == []


# ---- where a source lies ---------------------------------------------------------------------------------------------


def test_a_hubs_model_lies_in_the_data_folder(tmp_path: Path) -> None:
    folder = fetched(tmp_path, "acme/emoji", "refs/pr/1")
    assert model_folder("acme/emoji", "refs/pr/1", tmp_path) == folder
    with pytest.raises(ModelError, match=r"not completely, in .*: run `python -m diffcache_serving\.fetch`"):
        model_folder("acme/emoji", "", tmp_path)
    (folder / COMPLETE_MARKER).unlink()
    with pytest.raises(ModelError, match="not completely"):
        model_folder("acme/emoji", "refs/pr/1", tmp_path)


@pytest.mark.parametrize(("source", "folder"), [("pvc://claim/a/b", "/models/a/b"), ("pvc://claim", "/models")])
def test_a_claims_model_lies_where_it_is_mounted(source: str, folder: str) -> None:
    with pytest.raises(ModelError, match=f"{source}: {folder} holds no model_index.json"):
        model_folder(source)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("bundled://emoji", "emoji"),
        ("file:///models/my-sd/", "my-sd"),
        ("pvc://claim/a/b", "b"),
        ("pvc://claim", "claim"),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "stable-diffusion-v1-5"),
    ],
)
def test_a_model_is_called_by_the_last_part_of_its_source(source: str, name: str) -> None:
    assert model_name(source) == name


def test_an_unknown_kind_of_source_is_refused() -> None:
    with pytest.raises(ModelError, match="begin it with bundled://"):
        model_folder("s3://bucket/model")
