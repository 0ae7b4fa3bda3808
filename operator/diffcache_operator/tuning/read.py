"""Asks Prometheus for a cache's window.

Series are found by the labels `namespace` and `pod`, which a PodMonitor gives, and any scrape configuration with
`kubernetes_sd_configs: [{role: pod}]` that relabels `__meta_kubernetes_namespace` and `__meta_kubernetes_pod_name`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from diffcache_core.names import MOMENTS, QUALITY_SUM, STEPS
from diffcache_operator.clients.prometheus import Questions, TooLarge
from diffcache_operator.tuning.window import COMPARISONS, FIGURES, Counters, Grid, Newest, Reading, read

PODS = 8
"""That one question is about; half as many when their answer is too large. More save questions; of so many with thirty
bins in use an answer is some .8 MB."""


async def read_window(
    questions: Questions, namespace: str, pods: Sequence[str], grids: tuple[Grid, Grid], now: float
) -> Reading:
    """`pods`: the names of those that count. Raises PrometheusError."""
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
    """The series of a metric that pods have; names of Kubernetes need no quoting. `name` may have labels of its own."""
    metric, _, labels = name.partition("{")
    own = f",{labels.removesuffix('}')}" if labels else ""
    return f'{metric}{{namespace="{namespace}",pod=~"{"|".join(pods)}"{own}}}'


def _pieces(name: str) -> list[str]:
    """What is asked for a counter: the largest one by five, for an answer's length is limited."""
    return [f'{name}{{moment="{moment}"}}' for moment in MOMENTS] if name == QUALITY_SUM else [name]
