"""Loops that stand still on purpose, for test_loop_watch.py: tests that are not collected, and a process."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from diffcache_serving.config_file import ConfigFile, read_config_file
from diffcache_serving.config_watch import watch_config
from tests.system.serverprocess import serving_config

SECONDS = 0.8


async def hold_in_ours(folder: Path) -> None:
    """A coroutine of ours makes the call that blocks."""
    path = folder / "config.json"
    path.write_text(serving_config(folder).model_dump_json())
    file = ConfigFile(path, "another revision", read_config_file(path).config)

    def block(new: ConfigFile) -> asyncio.Future[None]:
        time.sleep(SECONDS)
        taken = asyncio.get_running_loop().create_future()
        taken.cancel()
        return taken

    try:
        await watch_config(file, block)
    except asyncio.CancelledError:
        return


async def test_held_by_ours(tmp_path: Path) -> None:
    await hold_in_ours(tmp_path)


async def test_held_by_the_test() -> None:
    time.sleep(SECONDS)  # noqa: ASYNC251


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(hold_in_ours(Path(scratch)))
    sys.exit(0)
