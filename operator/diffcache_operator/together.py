"""The operator's tasks stand and fall together."""

from __future__ import annotations

import asyncio
from typing import Any


class CannotGoOn(Exception):
    """The message says what has ended."""


async def run_together(main: asyncio.Task[Any], others: set[asyncio.Task[Any]]) -> None:
    """Until the first of them ends, with which all do: `main` may, the others are there as long as the operator.

    Raises what the first one raised, or CannotGoOn.
    """
    done, pending = await asyncio.wait({main, *others}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        if not task.cancelled():
            task.result()
        if task is not main or task.cancelled():
            raise CannotGoOn(f"{task.get_name()} has ended, which runs as long as the operator")
