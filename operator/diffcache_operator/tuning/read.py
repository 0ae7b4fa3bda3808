"""Asks Prometheus for a cache's window.

Series are found by the labels `namespace` and `pod`, which a PodMonitor gives, and any scrape configuration with
`kubernetes_sd_configs: [{role: pod}]` that relabels `__meta_kubernetes_namespace` and `__meta_kubernetes_pod_name`.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffcache_core.names import MOMENTS, QUALITY_SUM, STEPS
from diffcache_operator.clients.prometheus import Prometheus
from diffcache_operator.series import Series
from diffcache_operator.tuning.window import COMPARISONS, FIGURES, Grid, Reading, read


async def read_window(
    prometheus: Prometheus, url: str, namespace: str, cache: str, grids: tuple[Grid, Grid], now: float
) -> Reading:
    """Raises PrometheusError."""
    labels = selector(namespace, cache)

    async def over(grid: Grid, names: Sequence[str]) -> list[Series]:
        found: list[Series] = []
        for name in names:  # one after the other: Prometheus has others to serve, and answers take memory
            for which in _pieces(name, labels):
                found += await prometheus.query_range(url, which, grid.start, grid.end, grid.step)
        return found

    comparisons = await over(grids[0], COMPARISONS)
    figures = await over(grids[1], FIGURES)
    newest = await prometheus.query(url, f"timestamp({STEPS}{labels})", now)
    return read(comparisons, figures, newest, grids)


def selector(namespace: str, cache: str) -> str:
    """Of a cache's serving pods; names of Kubernetes need no quoting."""
    return f'{{namespace="{namespace}",pod=~"{cache}-[0-9]+"}}'


def _pieces(name: str, labels: str) -> list[str]:
    """What is asked for a counter: the largest one by five, for an answer's length is limited."""
    if name != QUALITY_SUM:
        return [name + labels]
    return [f'{name}{labels[:-1]},moment="{moment}"}}' for moment in MOMENTS]
