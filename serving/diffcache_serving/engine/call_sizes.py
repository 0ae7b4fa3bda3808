"""How large a denoiser call may be: learnt from calls that ran out of memory. Pure: time comes in as `now`."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

PROBE_SECONDS = 60.0
"""After that long a larger call is tried again: the memory may have been another process's. A probe that fails costs
about one call; a longer time leaves a device half used for longer after the shortage is over."""

SHAPES_KEPT = 64
"""Callers choose the shapes, so only so many are remembered; one that was forgotten is learnt anew by one failure."""

Shape = tuple[int, ...]


@dataclass
class _Limit:
    rows: int  # a call may have so many
    fitted: int  # the largest call that has fitted since the last failure, and is below it
    probe_at: float


class CallSizes:
    """A call's size is its rows: a guided run has two. The memory that a row takes depends on the latent's shape."""

    def __init__(self) -> None:
        self._limits: OrderedDict[Shape, _Limit] = OrderedDict()

    def allowed(self, shape: Shape, now: float) -> float:
        """Rows that a call of this shape may have; infinite where none has failed."""
        limit = self._limits.get(shape)
        if limit is None:
            return math.inf
        return limit.rows if now < limit.probe_at else limit.rows + max(1, limit.rows // 2)

    def failed(self, shape: Shape, rows: int, now: float) -> None:
        """A call did not fit: from now on half of it, or what is known to fit."""
        before = self._limits.pop(shape, None)
        fitted = before.fitted if before is not None and before.fitted < rows else 0
        self._limits[shape] = _Limit(max(rows // 2, fitted, 1), fitted, now + PROBE_SECONDS)
        if len(self._limits) > SHAPES_KEPT:
            self._limits.popitem(last=False)

    def fitted(self, shape: Shape, rows: int, now: float) -> None:
        """A call fitted. One that is larger than the limit was a probe, and sets it."""
        limit = self._limits.get(shape)
        if limit is None:
            return
        limit.fitted = max(limit.fitted, rows)
        if rows > limit.rows:
            limit.rows, limit.probe_at = rows, now + PROBE_SECONDS
