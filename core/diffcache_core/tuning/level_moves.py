"""Moves the similarities of a table of levels. Pure. Each function returns a valid table if the given one is valid."""

from __future__ import annotations

from collections.abc import Sequence

from diffcache_core.cache.resume import Level
from diffcache_core.tuning.evidence import BINS, CLOSED, EDGES, FEW, Evidence

Table = tuple[Level, ...]


def withdrawn(levels: Sequence[Level], evidence: Evidence, lowest: float) -> Table:
    """Returns the table with each level raised above all bins that are proven bad for it, and at least to `lowest`."""
    table: list[Level] = []
    floor = lowest
    for level in levels:
        bad = max((i + 1 for i in _served(level) if evidence.disproven(level.skip_percent, i)), default=0)
        floor = max(floor, level.similarity, EDGES[bad] if bad else 0.0)
        table.append(Level(level.skip_percent, floor))
    return tuple(table)


def loosened(levels: Sequence[Level], evidence: Evidence, lowest: float) -> Table:
    """Returns the table with each level lowered by one bin if the bins below are proven good. A level never stays above
    a level with a larger skip."""
    table: list[Level] = []
    ceiling = CLOSED
    for level in reversed(levels):
        below = _below(level.similarity)
        wanted = level.similarity
        if _leads_to_proof(level.skip_percent, below, evidence, lowest):
            wanted = min(wanted, max(EDGES[below], lowest))
        ceiling = min(ceiling, wanted)
        table.append(Level(level.skip_percent, ceiling))
    return tuple(reversed(table))


def eased(levels: Sequence[Level], evidence: Evidence) -> Table:
    """Returns the table with one level raised by one bin: the level whose lowest bin keeps the least quality."""
    movable = [
        at
        for at, level in enumerate(levels)
        if level.similarity < CLOSED
        and (at + 1 == len(levels) or _above(level.similarity) <= levels[at + 1].similarity)
    ]
    if not movable:
        return tuple(levels)

    def kept(at: int) -> tuple[float, int]:
        level = levels[at]
        return evidence.ratio(level.skip_percent, _served(level)[0]) or 0.0, -level.skip_percent

    worst = min(movable, key=kept)
    return tuple(
        Level(level.skip_percent, _above(level.similarity)) if at == worst else level for at, level in enumerate(levels)
    )


def _leads_to_proof(skip: int, index: int, evidence: Evidence, lowest: float) -> bool:
    """Returns whether this bin is proven, or one below it with only rarely used bins between."""
    passed = 0
    while index >= 0 and EDGES[index + 1] > lowest and not evidence.disproven(skip, index):
        if evidence.proven(skip, index, passed):
            return True
        if evidence.count(skip, index) >= FEW:
            return False
        index, passed = index - 1, passed + 1
    return False


def _served(level: Level) -> range:
    """Returns the bins that the level serves; the lowest one perhaps only partly."""
    return range(next((i for i in range(BINS) if EDGES[i + 1] > level.similarity), BINS), BINS)


def _below(similarity: float) -> int:
    """Returns the index of the first bin that lies, partly or wholly, below a threshold; -1 if there is none."""
    return max((i for i in range(BINS) if EDGES[i] < similarity), default=-1)


def _above(similarity: float) -> float:
    return next(EDGES[i] for i in range(BINS + 1) if EDGES[i] > similarity or i == BINS)
