"""The operator's tasks stand and fall together."""

from __future__ import annotations

import asyncio

import pytest

from diffcache_operator.together import CannotGoOn, run_together


async def ends(error: Exception | None = None) -> None:
    if error is not None:
        raise error


async def test_a_task_that_returns_ends_the_operator_with_its_name() -> None:
    main = asyncio.create_task(asyncio.sleep(3600))
    with pytest.raises(CannotGoOn, match="queue has ended"):
        await run_together(main, {asyncio.create_task(ends(), name="queue")})
    assert main.cancelled()


async def test_a_task_that_is_cancelled_ends_it_too() -> None:
    queue = asyncio.create_task(asyncio.sleep(3600), name="queue")
    queue.cancel()
    with pytest.raises(CannotGoOn, match="queue has ended"):
        await run_together(asyncio.create_task(asyncio.sleep(3600)), {queue})


async def test_a_failure_is_told_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        await run_together(asyncio.create_task(asyncio.sleep(3600)), {asyncio.create_task(ends(ZeroDivisionError()))})


async def test_a_signal_ends_it_in_order() -> None:
    other = asyncio.create_task(asyncio.sleep(3600), name="queue")
    await run_together(asyncio.create_task(ends()), {other})
    assert other.cancelled()
