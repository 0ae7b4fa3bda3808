"""Why a process does not start: one line for a person, one for Kubernetes."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from diffcache_core.names import REASON_FILE_ENVIRONMENT
from diffcache_core.reasons import MESSAGE_CHARACTERS, Reason, build_termination_message, parse_termination_message
from diffcache_serving.cache.lock import FolderInUse
from diffcache_serving.cache.milvus_lite import MilvusLiteError
from diffcache_serving.exit_reason import REASONS, reason_of, report_exit
from diffcache_serving.values.errors import (
    ConfigError,
    CudaUnavailable,
    DeviceFailed,
    DeviceOutOfMemory,
    DownloadFailed,
    FolderUnusable,
    LedgerError,
    ModelError,
    PortTaken,
)

CASES = [
    (ConfigError("x"), Reason.INVALID_CONFIG),
    (CudaUnavailable("x"), Reason.CUDA_UNAVAILABLE),
    (DownloadFailed("x"), Reason.DOWNLOAD_FAILED),
    (ModelError("x"), Reason.MODEL_LOAD_FAILED),
    (DeviceOutOfMemory("x"), Reason.OUT_OF_MEMORY),
    (MemoryError(), Reason.OUT_OF_MEMORY),
    (DeviceFailed("x"), Reason.DEVICE_FAILED),
    (FolderInUse("x"), Reason.VOLUME_IN_USE),
    (MilvusLiteError("x"), Reason.INDEX_FAILED),
    (PortTaken("x"), Reason.PORT_TAKEN),
    (FolderUnusable("x"), Reason.VOLUME_UNUSABLE),
    (LedgerError("x"), Reason.VOLUME_UNUSABLE),
    (sqlite3.OperationalError("disk I/O error"), Reason.VOLUME_UNUSABLE),
    (PermissionError(13, "Permission denied", "/data"), Reason.VOLUME_UNUSABLE),
    (ZeroDivisionError("x"), Reason.CRASHED),
]


def test_what_the_next_start_may_cure_has_another_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_exit(DeviceFailed("an illegal memory access")) == 1
    assert report_exit(ModelError("no such model")) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(("error", "reason"), CASES, ids=lambda value: getattr(value, "value", type(value).__name__))
def test_each_error_has_its_reason(error: Exception, reason: Reason) -> None:
    assert reason_of(error) is reason


def test_every_row_is_tested() -> None:
    assert {type(error) for error, _ in CASES} >= {kind for kind, _ in REASONS} - {sqlite3.Error, OSError}
    assert {reason for _, reason in CASES} == set(Reason)


def test_what_was_wrong_is_said_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "termination-log"
    monkeypatch.setenv(REASON_FILE_ENVIRONMENT, str(path))
    assert report_exit(ConfigError("/etc/config.json is not valid:\n  name: is required")) == 2
    assert capsys.readouterr().err == "diffcache: /etc/config.json is not valid:\n  name: is required\n"
    assert path.read_text() == "InvalidConfig: /etc/config.json is not valid: name: is required\n"


def test_a_bug_leaves_its_traceback_in_the_log_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "termination-log"
    monkeypatch.setenv(REASON_FILE_ENVIRONMENT, str(path))
    with pytest.raises(ZeroDivisionError) as caught:
        raise ZeroDivisionError("by zero")
    assert report_exit(caught.value) == 1
    assert "Traceback" in capsys.readouterr().err
    assert path.read_text() == "Crashed: ZeroDivisionError: by zero\n"


def test_a_file_that_cannot_be_written_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(REASON_FILE_ENVIRONMENT, str(tmp_path / "nowhere" / "log"))
    assert report_exit(PortTaken("cannot listen on 127.0.0.1:1")) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == "diffcache: cannot listen on 127.0.0.1:1"
    assert second.startswith("diffcache: the reason was not written: ")


def test_a_termination_message_is_short_and_can_be_read_again() -> None:
    message = build_termination_message(Reason.MODEL_LOAD_FAILED, "word " * 1000)
    assert len(message) == MESSAGE_CHARACTERS
    assert "\n" not in message
    read = parse_termination_message(build_termination_message(Reason.VOLUME_IN_USE, "held by: a pod\n"))
    assert read == (Reason.VOLUME_IN_USE, "held by: a pod")
    assert parse_termination_message("Error: something of the kubelet's") is None
    assert parse_termination_message("") is None
