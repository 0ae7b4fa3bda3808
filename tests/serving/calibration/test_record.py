"""The measurements on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffcache_serving.calibration.record import Record
from diffcache_serving.calibration.settings import CalibrationError

SETTINGS = {"steps": 8, "size": (64, 64)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "measurements.jsonl"


def test_a_restart_knows_what_is_done(path: Path) -> None:
    with Record(path, SETTINGS) as record:
        record.add("a", {"q": 0.7})
    with Record(path, SETTINGS) as record:
        assert "a" in record
        assert record["a"] == {"q": 0.7}
        assert "b" not in record


def test_a_torn_last_line_is_measured_again(path: Path) -> None:
    with Record(path, SETTINGS) as record:
        record.add("a", {"q": 0.7})
        whole = path.stat().st_size
        record.add("b", {"q": 0.8})
    for size in range(whole, path.stat().st_size):
        torn = path.with_name(f"torn-{size}")
        torn.write_bytes(path.read_bytes()[:size])
        with Record(torn, SETTINGS) as record:
            assert "a" in record
            assert "b" not in record
            record.add("c", {"q": 0.9})
        with Record(torn, SETTINGS) as record:
            assert record["c"] == {"q": 0.9}


def test_a_torn_first_line_is_a_new_record(path: Path) -> None:
    path.write_bytes(b'{"format": 1, "st')
    with Record(path, SETTINGS) as record:
        record.add("a", {})
    with Record(path, SETTINGS) as record:
        assert "a" in record


def test_other_settings_are_refused_by_name(path: Path) -> None:
    with Record(path, SETTINGS):
        pass
    with pytest.raises(CalibrationError, match=r"--work-dir.*steps was 8, is 5.*remove the file"):
        Record(path, {**SETTINGS, "steps": 5})


@pytest.mark.parametrize("content", [b"no record\n", b'{"format": 1}\n{"other": 1}\n', b"[]\n"])
def test_what_is_no_record_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=r"--work-dir.*is damaged"):
        Record(path, SETTINGS)
    assert path.read_bytes() == content
