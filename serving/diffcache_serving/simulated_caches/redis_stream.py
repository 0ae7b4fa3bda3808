"""Carries the events of all replicas in a Redis Stream. Every replica adds events; the one with the lease reads all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from diffcache_core.recently_used import RecentlyUsed
from diffcache_serving.simulated_caches.events import Event, UnreadableEvent, decode, encode
from diffcache_serving.simulated_caches.stream import BATCH_EVENTS, QUEUE_EVENTS, Reading

STREAM_EVENTS = 10_000
"""Maximum number of events in Redis: 25 MB at 512 dimensions. A reader that falls further behind misses some, and
counts them."""

LEASE_SECONDS = 10.0
"""Duration of the reader's lease. After a reader dies, no process reads for this time. With a shorter lease a slow pod
would lose it."""

FORGET_SECONDS = 3600  # Redis deletes the stream this long after the last event, so deleted caches leave nothing

PROCESSES_KEPT = 1000  # number of processes, including ended ones, whose gaps in the events are noticed

_BLOCK_MS = 1000  # maximum wait in Redis; it must be below the client's timeout of a command

PAUSE_SECONDS = 1.0  # pause after a failure, and between two attempts to become the reader

_RENEW = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('pexpire', KEYS[1], ARGV[2]) or 0"
_GIVE_BACK = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('del', KEYS[1]) or 0"

log = structlog.get_logger("diffcache.shadow_caches")


class RedisStream:
    """`name` separates caches that share a Redis. The stream owns the connection; `close` closes it."""

    def __init__(
        self,
        redis: Redis,
        name: str,
        on_dropped: Callable[[float], None] = lambda events: None,
        limit: int = QUEUE_EVENTS,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        """`on_dropped(events)` is called with the number of events that `put` accepted but that could not be sent."""
        self._on_dropped = on_dropped
        self._redis: Any = redis  # Any, because its types also cover clients that decode answers
        self._limit, self._lease_ms = limit, int(lease_seconds * 1000)
        self._stream, self._lease = f"{{{name}}}:shadow-events", f"{{{name}}}:shadow-reader"
        self._me = uuid.uuid4().hex
        self._numbered = 0  # number of the last event of this process; gaps tell the reader what it missed
        self._waiting: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._position = ""  # last id read; empty if this process is not the reader
        self._renewed = 0.0  # time of the loop when the lease was renewed
        self._last: RecentlyUsed[str, int] = RecentlyUsed(PROCESSES_KEPT)  # number of the last event read, by process
        self._sender = asyncio.create_task(self._send(), name="shadow-events")

    @property
    def tasks(self) -> Sequence[asyncio.Task[None]]:
        return [self._sender]

    def put(self, event: Event) -> bool:
        if len(self._waiting) >= self._limit:
            return False
        self._waiting.append(event)
        self._arrived.set()
        return True

    async def read(self, timeout: float) -> Reading:
        try:
            was_reader = bool(self._position)
            if not await self._hold():
                self._position = ""
                await asyncio.sleep(min(timeout, PAUSE_SECONDS))
                return Reading(False, [])
            if not was_reader:
                self._position, self._last = await self._end(), RecentlyUsed(PROCESSES_KEPT)
                return Reading(True, [], is_first=True)
            return await self._read(timeout)
        except (RedisError, OSError) as error:
            log.warning("the stream of requests is out of reach", error=repr(error))
            self._position = ""  # events are missed meanwhile, so the next reading starts from the ledger
            await asyncio.sleep(min(timeout, PAUSE_SECONDS))
            return Reading(False, [])

    async def close(self) -> None:
        self._sender.cancel()
        await asyncio.wait([self._sender])
        with contextlib.suppress(RedisError, OSError):
            await self._script(_GIVE_BACK, self._me)
        await self._redis.aclose()

    # ---- inside ----------------------------------------------------------------------------------------------------

    async def _hold(self) -> bool:
        """Takes or renews the lease. Returns whether this process is the reader for the duration of the lease."""
        if self._position and self._now() - self._renewed < self._lease_ms / 3000:
            return True
        asked = self._now()
        if await self._script(_RENEW, self._me, self._lease_ms) == 1:
            self._renewed = asked
            return True
        if await self._redis.set(self._lease, self._me, nx=True, px=self._lease_ms):
            self._renewed = asked
            self._position = ""  # another process may have read meanwhile
            return True
        return False

    async def _script(self, script: str, *arguments: Any) -> int:
        return int(await self._redis.eval(script, 1, self._lease, *arguments))

    async def _end(self) -> str:
        """Returns the id of the newest event. Only later events will be read."""
        newest = await self._redis.xrevrange(self._stream, count=1)
        return newest[0][0].decode() if newest else "0-0"

    async def _read(self, timeout: float) -> Reading:
        wait = max(1, min(int(timeout * 1000), self._lease_ms // 3, _BLOCK_MS))
        answer = await self._redis.xread({self._stream: self._position}, count=BATCH_EVENTS, block=wait)
        events: list[Event] = []
        missed = 0
        for row, fields in answer[0][1] if answer else []:
            self._position = row.decode()
            try:
                sender, number = json.loads(fields[b"from"])
                last = self._last.get(sender)
                missed += 0 if last is None else max(0, number - last - 1)
                self._last.put(sender, number)
                events.append(decode(fields[b"event"]))
            except (
                UnreadableEvent,
                KeyError,
                ValueError,
                RecursionError,
            ) as error:  # from a replica of another version
                missed += 1
                log.warning("an event of a request cannot be read", error=repr(error))
        return Reading(True, events, missed)

    async def _send(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(BATCH_EVENTS, len(self._waiting)))]
                try:
                    await self._add(batch)
                except (RedisError, OSError) as error:
                    self._on_dropped(len(batch))
                    log.warning("events of requests were not sent", events=len(batch), error=repr(error))
                    await asyncio.sleep(PAUSE_SECONDS)

    async def _add(self, batch: list[Event]) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            for event in batch:
                self._numbered += 1
                source = json.dumps([self._me, self._numbered])
                pipe.xadd(
                    self._stream, {"from": source, "event": encode(event)}, maxlen=STREAM_EVENTS, approximate=True
                )
            pipe.expire(self._stream, FORGET_SECONDS)
            await pipe.execute()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
