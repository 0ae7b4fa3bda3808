"""The rows of `kubectl diffcache get`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from diffcache.cluster.objects import Resource
from diffcache.output import duration

COLUMNS = ("NAME", "READY", "REASON", "SSR", "HIT", "ENTRIES", "REPLICAS", "TUNED", "ENDPOINT", "AGE")


def columns(with_namespace: bool) -> tuple[str, ...]:
    return ("NAMESPACE", *COLUMNS) if with_namespace else COLUMNS


def row(resource: Resource, now: datetime, with_namespace: bool) -> Sequence[object]:
    status, ready, cache = resource.status, resource.ready, resource.status.cache
    cells = (
        resource.name,
        "Unknown" if ready is None else ready.status,
        "NotSeenYet" if ready is None else ready.reason,
        "-" if cache is None else cache.steps_saved_ratio or "-",
        "-" if cache is None else cache.hit_ratio or "-",
        "-" if cache is None else cache.entries,
        f"{status.ready_replicas}/{resource.spec.serving.replicas}",
        status.tuning.history[0].reason if status.tuning is not None and status.tuning.history else "-",
        status.endpoint or "-",
        duration((now - resource.metadata.creation_timestamp).total_seconds()),
    )
    return (resource.metadata.namespace, *cells) if with_namespace else cells
