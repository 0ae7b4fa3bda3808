"""Asks Prometheus for the tuner's window of one cache.

It finds series by the labels `namespace` and `pod`. A PodMonitor sets them, and so does any scrape configuration with
`kubernetes_sd_configs: [{role: pod}]` that relabels `__meta_kubernetes_namespace` and `__meta_kubernetes_pod_name`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from diffcache_core.names import MOMENTS, QUALITY_SUM, STEPS
from diffcache_operator.clients.prometheus import Questions, TooLarge
from diffcache_operator.tuning.window import COMPARISONS, FIGURES, Counters, Grid, Newest, Reading, read

PODS = 8
"""Pods in one question; half as many if the answer is too large. A higher value saves questions. For 8 pods with thirty
bins in use an answer has some .8 MB."""


async def read_window(
    questions: Questions, namespace: str, pods: Sequence[str], grids: tuple[Grid, Grid], now: float
) -> Reading:
    """Reads a window. `pods`: names of the pods that count. `now`: seconds since the epoch. Raises PrometheusError."""
    compared, counted = Counters(grids[0], frozenset(pods)), Counters(grids[1], frozenset(pods))
    newest = Newest(frozenset(pods))

    async def ask(counters: Counters, name: str, some: Sequence[str]) -> None:
        grid = counters.grid
        try:
            await questions.query_range(selector(name, namespace, some), grid.start, grid.end, grid.step, counters.add)
        except TooLarge:
            if len(some) == 1:
                raise
            await ask(counters, name, some[: len(some) // 2])
            await ask(counters, name, some[len(some) // 2 :])

    for some in (pods[i : i + PODS] for i in range(0, len(pods), PODS)):
        for counters, names in ((compared, COMPARISONS), (counted, FIGURES)):
            for name in names:
                for which in _pieces(name):
                    await ask(counters, which, some)
    await questions.query(f"timestamp({selector(STEPS, namespace, pods)})", now, newest.add)
    return await asyncio.to_thread(read, compared, counted, newest)  # takes a second for 64 pods


def selector(name: str, namespace: str, pods: Sequence[str]) -> str:
    """Returns a PromQL selector of a metric's series of these pods. Names of Kubernetes need no quoting. `name` may
    have labels of its own."""
    metric, _, labels = name.partition("{")
    own = f",{labels.removesuffix('}')}" if labels else ""
    return f'{metric}{{namespace="{namespace}",pod=~"{"|".join(pods)}"{own}}}'


def _pieces(name: str) -> list[str]:
    """Returns the queries of one counter. The largest one is split into five, because an answer's length is limited."""
    return [f'{name}{{moment="{moment}"}}' for moment in MOMENTS] if name == QUALITY_SUM else [name]
