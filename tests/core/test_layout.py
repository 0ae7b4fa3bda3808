"""The folders are what the imports believe they are."""

from __future__ import annotations

import operator
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_module_shadows_the_standard_library() -> None:
    """A module directly in `operator/` would make Python itself fail where the root is on its path."""
    assert not list((ROOT / "operator").glob("*.py"))
    assert "diffcache" not in str(operator.__file__)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['diffcache', '--help']\n"
        "from diffcache.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = [m for m in ('torch', 'pymilvus', 'kopf', 'kubernetes', 'diffusers', 'numpy') if m in sys.modules]\n"
        "sys.exit(','.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "generate" in done.stdout
