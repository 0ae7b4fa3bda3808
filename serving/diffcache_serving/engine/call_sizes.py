"""Learns how large a denoiser call may be, from calls that ran out of memory. Pure: `now` is a parameter."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

PROBE_SECONDS = 60.0
"""Time after which a larger call is tried again, because another process may have used the memory. A failed try costs
about one call. A longer time leaves the device half used for longer after the shortage has ended."""

SHAPES_KEPT = 64
"""Maximum number of remembered shapes, because callers choose the shapes. A forgotten shape is learned again by one
failure."""

Shape = tuple[int, ...]


@dataclass
class _Limit:
    rows: int  # maximum rows of a call
    fitted: int  # rows of the largest call that fitted since the last failure; smaller than the failed call
    probe_at: float  # time of the next try with a larger call


class CallSizes:
    """Limits by the shape of the latent, because the memory of a row depends on it. The size of a call is its number of
    rows; a guided run has two."""

    def __init__(self) -> None:
        self._limits: OrderedDict[Shape, _Limit] = OrderedDict()

    def allowed(self, shape: Shape, now: float) -> float:
        """Returns how many rows a call of this shape may have; infinity if no call has failed."""
        limit = self._limits.get(shape)
        if limit is None:
            return math.inf
        return limit.rows if now < limit.probe_at else limit.rows + max(1, limit.rows // 2)

    def failed(self, shape: Shape, rows: int, now: float) -> None:
        """Records that a call did not fit. The new limit is half of it, or the size that is known to fit."""
        before = self._limits.pop(shape, None)
        fitted = before.fitted if before is not None and before.fitted < rows else 0
        self._limits[shape] = _Limit(max(rows // 2, fitted, 1), fitted, now + PROBE_SECONDS)
        if len(self._limits) > SHAPES_KEPT:
            self._limits.popitem(last=False)

    def fitted(self, shape: Shape, rows: int, now: float) -> None:
        """Records that a call fitted. A call above the limit was a try; it becomes the new limit."""
        limit = self._limits.get(shape)
        if limit is None:
            return
        limit.fitted = max(limit.fitted, rows)
        if rows > limit.rows:
            limit.rows, limit.probe_at = rows, now + PROBE_SECONDS
