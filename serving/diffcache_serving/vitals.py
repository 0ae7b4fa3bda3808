"""Watches the tasks and threads that a process needs. If one of them ends, the process reports it and ends too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any

from diffcache_serving.values.errors import DeviceFailed


class PartEnded(Exception):
    """A task ended that should run as long as the process. This is a bug; its traceback is in the cause."""


class Vitals:
    """Watches tasks and futures until the process has to stop."""

    def __init__(self) -> None:
        self._failure: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    def watch(self, *tasks: asyncio.Task[Any]) -> None:
        """Watches tasks. Errors use the names of the tasks."""
        for task in tasks:
            self.watch_future(task.get_name(), task)

    def watch_future(self, name: str, future: asyncio.Future[Any]) -> None:
        future.add_done_callback(partial(self._on_end, name))

    def watch_until_cancelled(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Watches tasks that a change of config may cancel."""
        for task in tasks:
            task.add_done_callback(lambda ended: None if ended.cancelled() else self._on_end(ended.get_name(), ended))

    async def failed_before(self, stopping: asyncio.Event) -> Exception | None:
        """Waits for the first failure and returns it. Returns None as soon as `stopping` is set."""
        stopped = asyncio.create_task(stopping.wait())
        waited: set[asyncio.Future[Any]] = {stopped, self._failure}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if stopped.done():
            return None
        stopped.cancel()
        return self._failure.result()

    def _on_end(self, name: str, ended: asyncio.Future[Any]) -> None:
        if self._failure.done():
            return
        cause = None if ended.cancelled() else ended.exception()
        if isinstance(cause, DeviceFailed):
            failure: Exception = cause
        else:
            how = "was cancelled" if ended.cancelled() else repr(cause) if cause is not None else "returned"
            failure = PartEnded(f"{name} has ended: {how}")
            failure.__cause__ = cause
        self._failure.set_result(failure)
