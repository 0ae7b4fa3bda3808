"""A queue of keys: a burst of changes of one object causes one reconcile, and two reconciles of it never run at once.

`Schedule` decides when to run a key, without a clock or tasks. `Queue` runs the reconciles.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

FIRST_RETRY, LAST_RETRY = 1.0, 300.0  # seconds
EAGER_RETRY = 5.0  # seconds: with less, restarts of its pods would retry a failing object all the time
JITTER = 0.2  # share of every wait that varies, so that objects that failed together are not retried together


class Key(NamedTuple):
    namespace: str
    name: str


@dataclass
class _Item:
    due: float | None = None  # None: nothing to do
    not_before: float = float("-inf")  # after a failure: the earliest time of the next try
    running: bool = False
    failures: int = 0


@dataclass
class Schedule:
    """When which key is reconciled. Times are seconds of one monotonic clock."""

    jitter: Callable[[], float] = random.random  # from 0 to 1
    running: int = 0
    _items: dict[Key, _Item] = field(default_factory=dict)
    _heap: list[tuple[float, Key]] = field(default_factory=list)
    """Keys that are due and not running. An entry that no longer matches its item is skipped."""

    def add(self, key: Key, now: float, after: float = 0.0) -> None:
        """Schedules the key at most `after` seconds from now. A running key runs once more afterwards."""
        item = self._items.setdefault(key, _Item())
        due = max(now + after, item.not_before)
        if item.due is None or due < item.due:
            self._set_due(key, item, due)

    def is_cared_for(self, key: Key) -> bool:
        """Returns whether the key is known and its last run has not failed."""
        item = self._items.get(key)
        return item is not None and item.failures == 0

    def take(self, now: float) -> Key | None:
        """Returns the key that is due longest and marks it as running; None if none is due."""
        due = self.next_due()
        if due is None or due > now:
            return None
        _, key = heapq.heappop(self._heap)
        item = self._items[key]
        item.running, item.due = True, None
        self.running += 1
        return key

    def succeeded(self, key: Key, now: float, again_after: float) -> None:
        """Ends a run. The next one is in `again_after` seconds, varied by the jitter."""
        item = self._ended(key)
        item.failures, item.not_before = 0, float("-inf")
        due = now + self._spread(again_after)
        self._set_due(key, item, due if item.due is None else min(item.due, due))

    def failed(self, key: Key, now: float) -> float:
        """Ends a failed run. The next one is in 1, 2, 4 ... at most 300 seconds; after a change it is sooner, but not
        at once. Returns the wait in seconds."""
        item = self._ended(key)
        wait = self._spread(min(LAST_RETRY, FIRST_RETRY * 2**item.failures))
        item.failures = min(item.failures + 1, 20)
        item.not_before = now + min(wait, EAGER_RETRY)
        self._set_due(key, item, now + wait if item.due is None else max(item.due, item.not_before))
        return wait

    def progressed(self, key: Key) -> None:
        """Resets the failures of a running key, because it made progress: a failure after this counts as its first. On
        a busy server each write may fail once or twice; without the reset the waits would grow to hours."""
        self._items[key].failures = 0

    def forget(self, key: Key) -> None:
        """Ends the run of a deleted object. If the key was added during the run (a new object of that name), it
        stays."""
        item = self._ended(key)
        item.failures = 0
        if item.due is None:
            del self._items[key]
        else:
            self._set_due(key, item, item.due)

    def next_due(self) -> float | None:
        while self._heap:
            due, key = self._heap[0]
            item = self._items.get(key)
            if item is not None and not item.running and item.due == due:
                return due
            heapq.heappop(self._heap)
        return None

    def lag(self, now: float) -> float:
        """Returns the seconds for which the most overdue key has waited; 0 if none is due."""
        due = self.next_due()
        return 0.0 if due is None else max(0.0, now - due)

    def namespaces(self) -> set[str]:
        """Returns the namespaces of all keys."""
        return {key.namespace for key in self._items}

    def __len__(self) -> int:
        return len(self._items)

    def _set_due(self, key: Key, item: _Item, due: float) -> None:
        item.due = due
        if not item.running:
            heapq.heappush(self._heap, (due, key))

    def _ended(self, key: Key) -> _Item:
        item = self._items[key]
        item.running = False
        self.running -= 1
        return item

    def _spread(self, seconds: float) -> float:
        return seconds * (1 - JITTER + 2 * JITTER * self.jitter())


GONE = object()
"""A reconcile returns this when its key needs no further run until it is added again."""


class Queue:
    """Runs `reconcile(key)`, which returns the seconds until its next run (a float), or GONE. Calls `on_failure(key,
    error, wait)` if it raises."""

    def __init__(
        self,
        reconcile: Callable[[Key], Awaitable[object]],
        on_failure: Callable[[Key, Exception, float], None],
        workers: int = 8,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reconcile, self._on_failure, self._clock, self._workers = reconcile, on_failure, clock, workers
        self.schedule = Schedule()
        self._changed = asyncio.Event()

    def add(self, namespace: str, name: str) -> None:
        self.schedule.add(Key(namespace, name), self._clock())
        self._changed.set()

    def ensure(self, key: Key) -> None:
        """Adds the key now if it is not known yet or its last run failed."""
        if not self.schedule.is_cared_for(key):
            self.add(*key)

    def lag(self) -> float:
        """Returns the seconds for which the most overdue key has waited for a worker."""
        return self.schedule.lag(self._clock())

    async def run(self) -> None:
        """Runs reconciles until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                now = self._clock()
                while self.schedule.running < self._workers and (key := self.schedule.take(now)) is not None:
                    group.create_task(self._run(key), name=f"reconcile {key.namespace}/{key.name}")
                await self._wait()

    async def _wait(self) -> None:
        due = self.schedule.next_due()
        timeout = None if due is None or self.schedule.running >= self._workers else max(0.0, due - self._clock())
        # `wait_for` would create a task in Python 3.11, and kopf at its end cancels all tasks that began after it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()

    async def _run(self, key: Key) -> None:
        try:
            again = await self._reconcile(key)
        except Exception as error:  # any error: this key is retried, the others continue
            self._on_failure(key, error, self.schedule.failed(key, self._clock()))
        else:
            if again is GONE:
                self.schedule.forget(key)
            else:
                assert isinstance(again, float)
                self.schedule.succeeded(key, self._clock(), again)
        self._changed.set()
