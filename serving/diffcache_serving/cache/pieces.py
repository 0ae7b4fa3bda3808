"""What is many, in pieces that index, ledger and store take at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

PIECE = 500
"""Entries, states or rows. Milvus answers at most 16,384 rows, takes messages of 64 MiB and reads a filter's every id;
Redis and SQLite let nobody else in while they work. More in a piece holds up look-ups longer (500 take some tens of
milliseconds), fewer take more round trips."""

T = TypeVar("T")


def pieces(items: Iterable[T], size: int = PIECE) -> Iterator[list[T]]:
    """Lists of at most `size` items, in order."""
    rest = iter(items)
    while piece := list(itertools.islice(rest, size)):
        yield piece
