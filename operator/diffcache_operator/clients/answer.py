"""Reads an answer of Prometheus, one series at a time. Pure.

The server may be hostile, and Python's objects take up to thirty times the memory of their JSON. So this code scans the
bytes in place, only makes objects of the current series, and skips all other values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from diffcache_operator.series import Series

MAX_DEPTH = 8
"""Nesting of skipped values at most; an answer of Prometheus has 5 levels. The scan itself needs no memory for
depth."""
MAX_SKIPPED_BYTES = 64 * 1024
"""Bytes of an answer that may be skipped: some servers add warnings and statistics. To skip a brace costs a
microsecond."""
MAX_LABELS = 64
"""Labels of a series at most. Prometheus' own limit is 30 where it sets one."""
MAX_TEXT_BYTES = 512
"""Bytes of a key, and of a label's name or value, at most. The longest that the tuner reads is the name of a model."""

_W = rb"[ \t\r\n]*"
_SPACE = re.compile(_W)
_SCALAR = re.compile(rb"[-+.0-9A-Za-z]{1,64}")
_BRACKET = re.compile(rb'["\[\]{}]')
_SAMPLE = re.compile(
    rb"%(w)s\[%(w)s(-?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][-+]?[0-9]{1,3})?)%(w)s,"
    rb'%(w)s"([-+.0-9A-Za-z]{1,40})"%(w)s\]%(w)s([],}])' % {b"w": _W}
)
"""Matches a time, a value, and the character after the sample."""


class NotPrometheus(ValueError):
    """The answer does not have the documented form (prometheus.io/docs/prometheus/latest/querying/api)."""


def read_series(body: bytes, kind: str, most: int) -> Iterator[Series]:
    """Yields the series of an answer of `kind` vector or matrix, each with at most `most` samples.

    Raises NotPrometheus when it reaches a malformed part: the caller must then discard the series before it.
    """
    scanner, fields = _Scanner(body), dict[str, str]()
    try:
        for key in scanner.members():
            if key == "data":
                yield from _read_data(scanner, fields, "value" if kind == "vector" else "values", most)
            elif key == "status":
                fields[key] = scanner.text()
            else:
                scanner.skip()
    except UnicodeDecodeError:
        raise NotPrometheus from None
    if scanner.peek() or fields != {"status": "success", "resultType": kind}:
        raise NotPrometheus


def _read_data(scanner: _Scanner, fields: dict[str, str], key_of_samples: str, most: int) -> Iterator[Series]:
    for key in scanner.members():
        if key == "result":
            for _ in scanner.items():
                yield _read_one(scanner, key_of_samples, most)
        elif key == "resultType":
            fields[key] = scanner.text()
        else:
            scanner.skip()


def _read_one(scanner: _Scanner, key_of_samples: str, most: int) -> Series:
    labels: dict[str, str] | None = None
    samples: list[tuple[float, float]] | None = None
    for key in scanner.members():
        if key == "metric":
            labels = {}
            for name in scanner.members():
                labels[name] = scanner.text()
                if len(labels) > MAX_LABELS:
                    raise NotPrometheus
        elif key == key_of_samples:
            samples = [scanner.sample()] if key == "value" else scanner.samples(most)
        else:
            scanner.skip()
    if labels is None or samples is None:
        raise NotPrometheus
    return Series(labels, samples)


class _Scanner:
    """A position in unchecked JSON. Each method raises NotPrometheus if it finds something else than it expects."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at, self._skipped = body, 0, 0

    def peek(self) -> bytes:
        """Returns the next byte that is no space; empty at the end."""
        self._at = self._matched(_SPACE).end()
        return self._body[self._at : self._at + 1]

    def members(self) -> Iterator[str]:
        """Yields the keys of an object. After each key the caller must read its value."""
        self._take(b"{")
        if self.peek() == b"}":
            self._at += 1
            return
        while True:
            key = self.text()
            self._take(b":")
            yield key
            if not self._is_followed(b"}"):
                return

    def items(self) -> Iterator[None]:
        """Yields once for each item of an array. The caller must read the item."""
        self._take(b"[")
        if self.peek() == b"]":
            self._at += 1
            return
        while True:
            yield
            if not self._is_followed(b"]"):
                return

    def samples(self, most: int) -> list[tuple[float, float]]:
        """Reads an array of at most `most` samples (time, value)."""
        self._take(b"[")
        if self.peek() == b"]":
            self._at += 1
            return []
        found = []
        for _ in range(most):
            match = self._matched(_SAMPLE)
            found.append(_numbers(match))
            self._at = match.end()
            if match[3] != b",":
                break
        if self._body[self._at - 1 : self._at] != b"]":
            raise NotPrometheus
        return found

    def sample(self) -> tuple[float, float]:
        match = self._matched(_SAMPLE)
        self._at = match.start(3)
        return _numbers(match)

    def text(self) -> str:
        """Reads a string. Also raises UnicodeDecodeError."""
        self.peek()
        start, self._at = self._at, self._end_of_string(MAX_TEXT_BYTES)
        written = self._body[start : self._at]
        try:
            return str(json.loads(written)) if b"\\" in written else written[1:-1].decode()
        except json.JSONDecodeError:
            raise NotPrometheus from None

    def skip(self) -> None:
        """Skips any value."""
        first, start, depth = self.peek(), self._at, 0
        if first not in (b"{", b"[", b'"'):
            self._at = self._matched(_SCALAR).end()
            return
        end = start + MAX_SKIPPED_BYTES - self._skipped
        while True:
            match = _BRACKET.search(self._body, self._at, end)
            if match is None:
                raise NotPrometheus
            self._at = match.start()
            if match[0] == b'"':
                self._at = self._end_of_string(end - self._at)
            else:
                self._at += 1
                depth += 1 if match[0] in (b"{", b"[") else -1
            if depth <= 0:
                break
            if depth > MAX_DEPTH:
                raise NotPrometheus
        self._skipped += self._at - start

    def _take(self, token: bytes) -> None:
        if self.peek() != token:
            raise NotPrometheus
        self._at += 1

    def _is_followed(self, end: bytes) -> bool:
        """Moves past a comma or past `end`. Returns whether it was a comma."""
        token = self.peek()
        if token not in (b",", end):
            raise NotPrometheus
        self._at += 1
        return token != end

    def _end_of_string(self, limit: int) -> int:
        """Returns the position after the string that begins here, which may have at most `limit` bytes."""
        start = self._at
        if self._body[start : start + 1] != b'"':
            raise NotPrometheus
        end = self._body.find(b'"', start + 1, start + limit)
        while end >= 0 and self._is_escaped(end):
            end = self._body.find(b'"', end + 1, start + limit)
        if end < 0:
            raise NotPrometheus
        return end + 1

    def _is_escaped(self, at: int) -> bool:
        slashes = 0
        while self._body[at - 1 - slashes : at - slashes] == b"\\":
            slashes += 1
        return slashes % 2 == 1

    def _matched(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        match = pattern.match(self._body, self._at)
        if match is None:
            raise NotPrometheus
        return match


def _numbers(match: re.Match[bytes]) -> tuple[float, float]:
    try:
        return float(match[1]), float(match[2])
    except ValueError:
        raise NotPrometheus from None
