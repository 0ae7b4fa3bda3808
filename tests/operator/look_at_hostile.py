"""`python look_at_hostile.py URL...`: an operator's looks at a Prometheus, in a process of their own.

Prints, as JSON, how each ended and by how many bytes they made the process grow at most.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from functools import partial
from pathlib import Path

from diffcache_operator.clients.prometheus import Access, Prometheus, PrometheusError, Source
from diffcache_operator.tuning.read import read_window
from diffcache_operator.tuning.window import Span

LOOKS = 4
NOW = 1_800_000_000.0
PODS = tuple(f"emoji-{number}" for number in range(8))


async def look(prometheus: Prometheus, source: Source) -> str:
    grids = Span(NOW - 7 * 86400, NOW - 86400).grids(NOW)
    assert grids is not None
    try:
        reading = await prometheus.look(source, partial(read_window, namespace="demo", pods=PODS, grids=grids, now=NOW))
    except PrometheusError as error:
        return error.reason
    return "BadData" if reading.bad else "read"


async def looks(url: str) -> list[str]:
    """Several at once, as the operator's own, for those are told what is wrong and do not wait to tell it."""
    prometheus = Prometheus(Access(url), seconds=5, look_seconds=60)
    return await asyncio.gather(*(look(prometheus, Source(url)) for _ in range(LOOKS)))


def peak() -> int:
    """Resident bytes at most, since the kernel was told to count anew."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


async def main() -> None:
    """One URL after the other; what each left behind counts for those after it, too."""
    await looks("http://127.0.0.1:1")  # whatever is imported and made once is there
    Path("/proc/self/clear_refs").write_text("5")
    before, told = peak(), {}
    for url in sys.argv[1:]:
        told[url] = {"ended": await looks(url), "grown": peak() - before}
    print(json.dumps(told))


asyncio.run(main())
