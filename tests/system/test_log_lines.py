"""No line of a log has the user part of a URL, whoever wrote the text."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from diffcache_operator.logs import JsonLines
from diffcache_serving.logs import configure_logs

SAID = "cannot reach redis://me:hunter2@redis:6379 through http://proxy:hunter2@proxy:3128"
PASSWORD = "hunter2"  # none of ours


def test_the_operators() -> None:
    out = io.StringIO()
    log = logging.Logger("diffcache.test")
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines(tracebacks_of_libraries=True))
    log.addHandler(handler)
    try:
        raise OSError(SAID)
    except OSError:
        log.exception("failed: %s", SAID, extra={"address": SAID})
    line = json.loads(out.getvalue())
    assert PASSWORD not in out.getvalue()
    assert "redis://redis:6379" in line["event"]
    assert "http://proxy:3128" in line["exception"]


@pytest.mark.parametrize("as_json", [True, False])
def test_the_serving_processes(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    handlers, level = logging.getLogger().handlers, logging.getLogger().level
    try:
        configure_logs(as_json)
        try:
            raise OSError(SAID)
        except OSError as error:
            structlog.get_logger().error(SAID, address=SAID, error=error, exc_info=True)
            logging.getLogger("redis").warning("failed: %s", SAID, exc_info=True)
    finally:
        logging.getLogger().handlers, logging.getLogger().level = handlers, level
        structlog.reset_defaults()
    told = capsys.readouterr().err
    assert PASSWORD not in told
    assert told.count("redis://redis:6379") >= 4
