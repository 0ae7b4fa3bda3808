"""What others have said reaches a log and a terminal without what could move its cursor."""

from __future__ import annotations

import subprocess
import sys

import pytest

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202e"

PROGRAM = """
import logging, sys, structlog
from diffcache_serving.logs import configure_logs
from diffcache_serving.exit_reason import report_exit
from diffcache_serving.values.errors import ModelError

hostile = {hostile!r}
configure_logs(json={json})
log = structlog.get_logger("test")
log.warning(f"a folder says {{hostile}}", field=hostile, several=[hostile], **{{hostile: 1}})
logging.getLogger("library").warning("a library says %s", hostile)
try:
    raise ValueError(hostile)
except ValueError:
    log.exception("it failed")
    logging.getLogger("library").exception("it failed, too")
report_exit(ModelError(f"the model {{hostile}} of http://me:hunter2@hub/"))
report_exit(RuntimeError(hostile))
"""


@pytest.mark.parametrize("json", [False, True], ids=["terminal", "json"])
def test_foreign_text_moves_no_cursor(json: bool) -> None:
    program = PROGRAM.format(hostile=HOSTILE, json=json)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.split("\n")
    assert all(line.isprintable() for line in lines), repr(done.stderr)
    assert "hunter2" not in done.stderr
    assert "the model \\x1b]0;owned" in done.stderr
    assert sum("ValueError" in line for line in lines) >= 2
