"""Notices that the config file has another content. No request waits for it, and a bad file changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from diffcache_serving.config_file import ConfigFile, read_config_file
from diffcache_serving.errors import ConfigError, ModelError

POLL_SECONDS = 1.0
"""A kubelet takes up to a minute to bring a new ConfigMap, so faster gains nothing; each look is one `stat`."""

Signature = tuple[int, int, int]

log = structlog.get_logger("diffcache.config")


async def watch_config(
    file: ConfigFile, take_over: Callable[[ConfigFile], Awaitable[None]], poll_seconds: float = POLL_SECONDS
) -> None:
    """Until it is cancelled: calls `take_over` with each new content. It may raise ConfigError or ModelError for one
    that cannot be used, which is logged once and otherwise changes nothing.

    Polled, because inotify does not see a kubelet's swap of the link `..data`, two levels above the file's own name.
    """
    seen: Signature | None = None  # it may have changed since `file` was read
    revision = file.revision
    while True:
        signature = _signature(file.path)
        if signature is not None and signature != seen:
            seen = signature
            try:
                new = await asyncio.to_thread(read_config_file, file.path)
                if new.revision != revision:
                    await take_over(new)
                    revision = new.revision
            except (ConfigError, ModelError) as error:
                log.error("the new config cannot be used, the old one stays", error=str(error))
            except (
                Exception
            ) as error:  # a disk that is full while the cache shrinks, or a bug: the next one still counts
                log.error("a new config was not taken over whole", exc_info=error)
        await asyncio.sleep(poll_seconds)


def _signature(path: Path) -> Signature | None:
    """Differs when the content may; None while there is no file. Follows links, so a swapped one shows as well."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
