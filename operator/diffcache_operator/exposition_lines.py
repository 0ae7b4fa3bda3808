"""Reads samples from what a pod exports. Pure.

A user's own image may export anything. So this code only looks at lines with the wanted names, with patterns that take
linear time.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

MAX_LINE = 2048
"""Characters of a line at most; a line of ours has a few hundred."""

_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="([^"\\\n]*+(?:\\.[^"\\\n]*+)*+)",?')
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True)
class Sample:
    name: str
    labels: Mapping[str, str]
    value: float


def read_samples(text: str, names: Collection[str]) -> Iterator[Sample]:
    """Yields the samples with the wanted names from Prometheus' text format. Raises ValueError for a malformed line."""
    line = re.compile(rf"^({'|'.join(map(re.escape, names))})(\{{[^\n]*\}})?[ \t]+([^ \t\n]+)[^\n]*$", re.MULTILINE)
    for match in line.finditer(text):
        if match.end() - match.start() > MAX_LINE:
            raise ValueError("a line is longer than any of ours")
        yield Sample(match[1], _labels(match[2] or "{}"), float(match[3]))


def _labels(block: str) -> dict[str, str]:
    found, at = {}, 1
    while at < len(block) - 1:
        match = _LABEL.match(block, at)
        if match is None:
            raise ValueError("a label has not its form")
        found[match[1]] = _ESCAPE.sub(_unescaped, match[2])
        at = match.end()
    return found


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]
