"""A time series, as Prometheus returns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Series:
    """Labels, including `__name__`, and values as (seconds since the epoch, value) by rising time."""

    labels: Mapping[str, str]
    values: Sequence[tuple[float, float]]

    @property
    def name(self) -> str:
        return self.labels.get("__name__", "")
