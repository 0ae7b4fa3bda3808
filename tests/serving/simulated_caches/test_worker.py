"""The worker's thread and the event loop: neither waits for the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import cast

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import LCBFU, PolicyRecord
from diffcache_core.cache.resume import Levels
from diffcache_core.cache.states import StateKind
from diffcache_serving.metrics import Metrics
from diffcache_serving.simulated_caches.caches import Restored
from diffcache_serving.simulated_caches.stream import LocalStream
from diffcache_serving.simulated_caches.worker import SimulationWorker


async def test_closing_in_the_middle_of_a_computation_leaves_the_loop_to_others() -> None:
    loop = asyncio.get_running_loop()
    computing, release = asyncio.Event(), threading.Event()
    released = []

    def slow() -> Iterator[Restored]:
        loop.call_soon_threadsafe(computing.set)
        released.append(release.wait(5))  # in vain if the loop is held
        return iter(())

    class Rows:
        __iter__ = staticmethod(slow)

    async def read_ledger() -> tuple[Sequence[Restored], PolicyRecord]:
        return cast(Sequence[Restored], Rows()), PolicyRecord()

    levels, budget = Levels(()), Budget(1, 1)
    worker = SimulationWorker(LocalStream(), read_ledger, Metrics("test"), LCBFU(), StateKind.CLEAN, levels, budget)
    await computing.wait()
    loop.call_later(0.1, release.set)
    await worker.close()
    assert released == [True]
