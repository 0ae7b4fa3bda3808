"""Watches the config file, and tries to apply new content until all of it is in force.

No request waits for this. A file that cannot be used changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from diffcache_serving.config_file import ConfigFile, read_config_file
from diffcache_serving.values.errors import ConfigError

POLL_SECONDS = 1.0
"""Time between two checks of the file; each is one `stat`. A kubelet takes up to a minute to update a ConfigMap, so a
shorter time gains nothing."""

RETRY_SECONDS, MOST_RETRY_SECONDS = 1.0, 60.0
"""Pause between two attempts with the same content: it begins with the first value and doubles up to the second. With
a longer pause the config waits longer after an outage has ended; a shorter one calls a ledger that is down more
often."""

Signature = tuple[int, int, int]

log = structlog.get_logger("diffcache.config")


class NotWhole(Exception):
    """Some parts of a config were not applied. `hanging` has the reasons by part; parts are those of
    names.CONFIG_PARTS."""

    def __init__(self, hanging: Mapping[str, str]) -> None:
        super().__init__(", ".join(f"{part}: {reason}" for part, reason in hanging.items()))
        self.hanging = hanging


@dataclass(frozen=True)
class _Outcome:
    whole: str  # the revision in force; empty while a config is applied only in part
    hanging: Mapping[str, str]


async def watch_config(
    file: ConfigFile,
    take_over: Callable[[ConfigFile], Awaitable[None]],
    on_attempt: Callable[[Mapping[str, str]], None] = lambda hanging: None,
    poll_seconds: float = POLL_SECONDS,
    retry_seconds: float = RETRY_SECONDS,
) -> None:
    """Runs until it is cancelled. Calls `take_over` with each new content, again and again while it raises NotWhole.

    A second call of `take_over` with the same content must change nothing. After each attempt `on_attempt` is called
    with the reasons of the parts that were not applied.

    It polls the file, because inotify does not see that a kubelet replaces the link `..data`, two levels above the
    file's own name.
    """
    loop = asyncio.get_running_loop()
    seen: Signature | None = None  # None, because the content may have changed since `file` was read
    last = _Outcome(file.revision, {})
    pause, due = retry_seconds, 0.0
    while True:
        signature = _signature(file.path)
        is_new = signature is not None and signature != seen
        if is_new or (last.hanging and loop.time() >= due):
            pause = retry_seconds if is_new else min(2 * pause, MOST_RETRY_SECONDS)
            seen, before = signature, last
            last = await _attempt(file.path, before.whole, take_over)
            due = loop.time() + pause
            on_attempt(last.hanging)
            if last.hanging and last.hanging != before.hanging:
                log.error("the new config is not in force, it is tried again", **last.hanging)
        await asyncio.sleep(poll_seconds)


async def _attempt(path: Path, whole: str, take_over: Callable[[ConfigFile], Awaitable[None]]) -> _Outcome:
    try:
        new = await asyncio.to_thread(read_config_file, path)
    except ConfigError as error:
        return _Outcome(whole, {"file": str(error)})
    if new.revision == whole:
        return _Outcome(whole, {})
    try:
        await take_over(new)
    except NotWhole as error:
        return _Outcome("", error.hanging)
    return _Outcome(new.revision, {})


def _signature(path: Path) -> Signature | None:
    """Returns a value that changes when the content may have changed, or None if there is no file.

    Follows links, so it also changes when a link is replaced.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
