"""Structured logs on standard error: JSON for machines, plain lines on a terminal. They never contain a prompt."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from diffcache_core.foreign import printable, printable_lines, without_credentials


def _make_printable(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escapes control characters for a terminal. Texts from a model folder, a store or a client may contain some."""
    texts = {key: value if isinstance(value, str) else repr(value) for key, value in event.items()}
    return {printable(key): printable_lines(text) for key, text in texts.items()}


def _drop_credentials(_: object, __: str, line: Any) -> str:
    """Removes credentials of URLs from a finished line. They may come from a library's error, a proxy or a manifest."""
    return without_credentials(str(line))


def configure_logs(json: bool) -> None:
    """Configures all logs. With `json`, each line is one object. Warnings of libraries have the same form."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.typing.Processor]
    if json:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # Tracebacks are formatted before control characters are escaped. We use the plain format, because the pretty
        # one prints local variables, which may include prompts.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False, exception_formatter=plain)
        last = [structlog.processors.format_exc_info, _make_printable, renderer]
    last.append(_drop_credentials)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers, root.level = [handler], logging.WARNING
    milvus = logging.getLogger("pymilvus")  # it has its own handler, and also logs tracebacks of errors that it raises
    milvus.handlers, milvus.propagate = [], True
    milvus.setLevel(logging.CRITICAL)
