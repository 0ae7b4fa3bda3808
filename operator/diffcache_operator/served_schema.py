"""Asks now and then which of our fields are missing in the CRD in the cluster."""

from __future__ import annotations

import time

from diffcache_operator.clients.api import Api
from diffcache_operator.schema import missing_fields

SCHEMA_SECONDS = 60.0  # seconds for which an answer is used


class ServedSchema:
    def __init__(self, api: Api) -> None:
        self._api = api
        self._read = float("-inf")
        self._missing: list[str] = []

    async def missing_fields(self) -> list[str]:
        """Returns paths such as `spec.cache.levels` that the CRD lacks. Raises ApiError."""
        if time.monotonic() - self._read > SCHEMA_SECONDS:
            served = await self._api.served_schema()
            self._missing = missing_fields(served) if served is not None else []
            self._read = time.monotonic()
        return self._missing
