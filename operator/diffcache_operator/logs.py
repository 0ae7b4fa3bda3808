"""Logs: one JSON object per line, with the same keys as the serving pods' logs: `event`, `level`, `timestamp`,
`exception`."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from diffcache_core.foreign import without_credentials

_LIBRARIES = ("kopf", "aiohttp", "asyncio")
_USUAL = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "k8s_ref", "k8s_skip", "settings"}


def configure_logs(level: str) -> None:
    """Sets up logging. Unless `level` is debug, libraries only log warnings and errors, without tracebacks."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(tracebacks_of_libraries=level == "debug"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    if level != "debug":
        for name in _LIBRARIES:
            logging.getLogger(name).setLevel(logging.WARNING)
        for name in ("kopf._core.reactor.running", "kopf._core.reactor.orchestration"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # an error that ends a watch ends kopf, and we log it


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON. Each value of `extra` gets its own key. The user part of URLs is
    removed."""

    def __init__(self, *, tracebacks_of_libraries: bool) -> None:
        super().__init__()
        self._all_tracebacks = tracebacks_of_libraries

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        line = {"event": record.getMessage()}
        if error is not None and (self._all_tracebacks or record.name.partition(".")[0] not in _LIBRARIES):
            line["exception"] = self.formatException(record.exc_info)  # type: ignore[arg-type]  # there is one
        elif error is not None:
            line["event"] += f": {type(error).__name__}: {error}"
        extra = {key: value for key, value in vars(record).items() if key not in _USUAL}
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        text = json.dumps({**line, **extra, "level": record.levelname.lower(), "timestamp": at}, default=str)
        return without_credentials(text)
