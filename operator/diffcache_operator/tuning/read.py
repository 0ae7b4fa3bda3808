"""Asks Prometheus for a cache's window.

Series are found by the labels `namespace` and `pod`, which a PodMonitor gives, and any scrape configuration with
`kubernetes_sd_configs: [{role: pod}]` that relabels `__meta_kubernetes_namespace` and `__meta_kubernetes_pod_name`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from diffcache_core.names import STEPS
from diffcache_operator.clients.prometheus import Prometheus
from diffcache_operator.series import Series
from diffcache_operator.tuning.window import COMPARISONS, FIGURES, Grid, Reading, read


async def read_window(
    prometheus: Prometheus, url: str, namespace: str, cache: str, grids: tuple[Grid, Grid], now: float
) -> Reading:
    """Raises PrometheusError."""
    labels = selector(namespace, cache)

    async def over(grid: Grid, names: Sequence[str]) -> list[Series]:
        asked = (prometheus.query_range(url, name + labels, grid.start, grid.end, grid.step) for name in names)
        return [series for found in await asyncio.gather(*asked) for series in found]

    comparisons, figures, newest = await asyncio.gather(
        over(grids[0], COMPARISONS),
        over(grids[1], FIGURES),
        prometheus.query(url, f"timestamp({STEPS}{labels})", now),
    )
    return read(comparisons, figures, newest, grids)


def selector(namespace: str, cache: str) -> str:
    """Of a cache's serving pods; names of Kubernetes need no quoting."""
    return f'{{namespace="{namespace}",pod=~"{cache}-[0-9]+"}}'
