"""Runs the operator's tasks together: if one ends, all end."""

from __future__ import annotations

import asyncio
from typing import Any


class CannotGoOn(Exception):
    """A task has ended that must not. The message names it."""


async def run_together(main: asyncio.Task[Any], others: set[asyncio.Task[Any]]) -> None:
    """Waits until the first task ends, then cancels all others. Only `main` may end; the others must run as long as the
    operator.

    Raises what that task raised, or CannotGoOn if it was not `main`.
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
