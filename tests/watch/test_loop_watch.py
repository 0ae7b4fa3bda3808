"""The watch itself: a test fails in which our code held a loop, its own or that of a process it started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.watch import loop_watch

STALLING = Path(__file__).with_name("stalling.py")
ROOT = STALLING.parents[2]


def test_a_test_fails_in_which_our_code_holds_the_loop_and_only_then() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(STALLING)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 1, ran.stdout
    assert "2 passed, 1 error" in ran.stdout
    assert "ERROR at teardown of test_held_by_ours" in ran.stdout
    assert "config_watch.py" in ran.stdout


def test_a_process_that_a_test_starts_is_watched(tmp_path: Path) -> None:
    environment = {**os.environ, loop_watch.FOLDER: str(tmp_path)}
    environment["PYTHONPATH"] += os.pathsep + str(ROOT)
    subprocess.run([sys.executable, str(STALLING)], env=environment, cwd=ROOT, check=True)
    (told,) = loop_watch.take_reports(tmp_path)
    assert "stalling.py" in told
    assert "config_watch.py" in told
