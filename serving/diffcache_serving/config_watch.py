"""Notices that the config file has another content, and stays at it until that is taken over whole.

No request waits for it, and a file that cannot be used changes nothing.
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
"""A kubelet takes up to a minute to bring a new ConfigMap, so faster gains nothing; each look is one `stat`."""

RETRY_SECONDS, MOST_RETRY_SECONDS = 1.0, 60.0
"""Between two attempts at the same content: the first pause, which doubles up to the last. A longer one leaves the
config waiting for longer once what it needs is back, a shorter one asks a ledger that is down more often."""

Signature = tuple[int, int, int]

log = structlog.get_logger("diffcache.config")


class NotWhole(Exception):
    """Parts of a config were not taken over. `hanging`: why, by the name of the part, one of names.CONFIG_PARTS."""

    def __init__(self, hanging: Mapping[str, str]) -> None:
        super().__init__(", ".join(f"{part}: {reason}" for part, reason in hanging.items()))
        self.hanging = hanging


@dataclass(frozen=True)
class _Outcome:
    whole: str  # the revision in force; empty while only some parts of one are
    hanging: Mapping[str, str]


async def watch_config(
    file: ConfigFile,
    take_over: Callable[[ConfigFile], Awaitable[None]],
    on_attempt: Callable[[Mapping[str, str]], None] = lambda hanging: None,
    poll_seconds: float = POLL_SECONDS,
    retry_seconds: float = RETRY_SECONDS,
) -> None:
    """Until it is cancelled: calls `take_over` with each new content, again and again while it raises.

    `take_over` may raise NotWhole, and must come to the same when it is called twice. `on_attempt` is called after each
    attempt: which parts hang, and why.

    Polled, because inotify does not see a kubelet's swap of the link `..data`, two levels above the file's own name.
    """
    loop = asyncio.get_running_loop()
    seen: Signature | None = None  # it may have changed since `file` was read
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
    """Differs when the content may; None while there is no file. Follows links, so a swapped one shows as well."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
