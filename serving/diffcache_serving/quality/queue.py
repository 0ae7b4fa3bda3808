"""A queue of comparisons that wait until the device is idle. It is limited in bytes; first in, first out."""

from __future__ import annotations

import asyncio

from diffcache_serving.quality.plan import Plan

QUEUE_BYTES = 64 * 2**20
"""Maximum size of the pictures and states that wait. 64 MiB are 80 comparisons at 512 pixels, from some thousand
requests. A higher value keeps comparisons of a longer busy period for the next idle one, but uses more memory."""


class PlanQueue:
    """Plans in memory. After `get` the caller must call `done` when the plan is finished."""

    def __init__(self, max_bytes: int = QUEUE_BYTES) -> None:
        self._plans: asyncio.Queue[Plan] = asyncio.Queue()
        self._max_bytes, self.nbytes = max_bytes, 0

    def put(self, plan: Plan) -> bool:
        """Queues a plan. Returns False if it does not fit."""
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
        """Returns when all queued plans are done."""
        await self._plans.join()

    def drain(self) -> int:
        """Drops all waiting plans and returns their number."""
        count = 0
        while not self._plans.empty():
            self.nbytes -= self._plans.get_nowait().nbytes
            self._plans.task_done()
            count += 1
        return count
