"""Comparisons that wait for the device to be idle: bounded in bytes, first in, first out."""

from __future__ import annotations

import asyncio

from diffcache_serving.quality.plan import Plan

QUEUE_BYTES = 64 * 2**20
"""Pictures and states that wait: 64 MiB are 80 comparisons at 512 pixels, of some thousand requests. More carries a
longer busy time into the next idle one and holds more memory."""


class PlanQueue:
    """Plans in memory. Whoever gets one says `done` when it is dealt with."""

    def __init__(self, max_bytes: int = QUEUE_BYTES) -> None:
        self._plans: asyncio.Queue[Plan] = asyncio.Queue()
        self._max_bytes, self.nbytes = max_bytes, 0

    def put(self, plan: Plan) -> bool:
        """False when it does not fit beside what waits."""
        if self.nbytes + plan.nbytes > self._max_bytes:
            return False
        self.nbytes += plan.nbytes
        self._plans.put_nowait(plan)
        return True

    async def get(self) -> Plan:
        plan = await self._plans.get()
        self.nbytes -= plan.nbytes
        return plan

    def done(self) -> None:
        self._plans.task_done()

    async def join(self) -> None:
        """Returns when all that was put is done."""
        await self._plans.join()

    def drain(self) -> int:
        """Forgets all that waits, and returns how many that were."""
        count = 0
        while not self._plans.empty():
            self.nbytes -= self._plans.get_nowait().nbytes
            self._plans.task_done()
            count += 1
        return count
