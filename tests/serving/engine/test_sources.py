"""A folder that is there and may not be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, sys
from diffcache_serving.engine.sources import model_folder
from diffcache_serving.values.errors import ModelError
if os.getuid() == 0:
    os.setuid(10001)
try:
    model_folder("file://" + sys.argv[1])
except ModelError as error:
    print(error)
"""


def test_an_unreadable_model_says_so(tmp_path: Path) -> None:
    """As on a claim whose files belong to somebody else; root may read everything, so another user tries."""
    folder = tmp_path / "model"
    folder.mkdir(mode=0o000)
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True, check=True
    ).stdout
    assert "may not read" in told
    assert "chmod -R a+rX" in told
