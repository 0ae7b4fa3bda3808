"""What a log line looks like to a machine."""

from __future__ import annotations

import json
import subprocess
import sys

CODE = """
import logging, structlog, pymilvus
from diffcache_serving.logs import configure_logs
configure_logs(json=True)
log = structlog.get_logger("diffcache.test")
with structlog.contextvars.bound_contextvars(request_id="r1"):
    log.info("answered", steps=8)
logging.getLogger("some.library").warning("from a library %s", "here")
logging.getLogger("pymilvus").warning("what it copes with itself")
try:
    prompt = "a prompt that must not be logged"
    raise ArithmeticError("broken")
except ArithmeticError as error:
    log.error("failed", exc_info=error)
"""


def test_every_line_is_one_json_object_without_local_variables() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    answered, foreign, failed = (json.loads(line) for line in done.stderr.splitlines())
    assert (answered["event"], answered["level"], answered["request_id"], answered["steps"]) == (
        "answered",
        "info",
        "r1",
        8,
    )
    assert (foreign["event"], foreign["level"]) == ("from a library here", "warning")
    assert "ArithmeticError: broken" in failed["exception"]
    assert "must not be logged" not in done.stderr.replace("raise", "")
