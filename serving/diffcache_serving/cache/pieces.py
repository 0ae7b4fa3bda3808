"""Splits many items into pieces that index, ledger and store can handle in one call."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

PIECE = 500
"""Number of entries, states or rows in a piece. Milvus returns at most 16,384 rows, accepts messages of 64 MiB and
parses every id in a filter; Redis and SQLite handle no other call while they work. A larger piece delays look-ups
longer (500 take some tens of milliseconds); a smaller piece needs more round trips."""

T = TypeVar("T")


def pieces(items: Iterable[T], size: int = PIECE) -> Iterator[list[T]]:
    """Yields lists of at most `size` items, in order."""
    rest = iter(items)
    while piece := list(itertools.islice(rest, size)):
        yield piece
