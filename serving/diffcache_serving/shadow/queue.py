"""Comparisons that wait for the device to be idle: bounded in bytes, first in, first out."""

from __future__ import annotations

import asyncio
from collections import deque

from diffcache_serving.shadow.plan import Plan

QUEUE_BYTES = 64 * 2**20
"""Pictures and states that wait: 64 MiB are 80 comparisons at 512 pixels, of some thousand requests. More carries a
longer busy time into the next idle one and holds more memory."""


class PlanQueue:
    """Plans in memory."""

    def __init__(self, max_bytes: int = QUEUE_BYTES) -> None:
        self._plans: deque[Plan] = deque()
        self._filled = asyncio.Event()
        self._max_bytes, self.nbytes = max_bytes, 0

    def put(self, plan: Plan) -> bool:
        """False when it does not fit beside what waits."""
        if self.nbytes + plan.nbytes > self._max_bytes:
            return False
        self._plans.append(plan)
        self.nbytes += plan.nbytes
        self._filled.set()
        return True

    async def get(self) -> Plan:
        while not self._plans:
            self._filled.clear()
            await self._filled.wait()
        plan = self._plans.popleft()
        self.nbytes -= plan.nbytes
        return plan

    def drain(self) -> list[Plan]:
        """Takes out all that waits."""
        plans = list(self._plans)
        self._plans.clear()
        self.nbytes = 0
        return plans
