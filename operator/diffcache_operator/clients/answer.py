"""An answer of Prometheus, read one series at a time. Pure.

Who answers may be anybody, and Python's objects take up to thirty times the memory of the JSON that they are made of.
So the answer is walked through where it lies, nothing of it becomes an object but the series at hand, and all that is
not needed is stepped over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from diffcache_operator.series import Series

MAX_DEPTH = 8
"""Of what is stepped over; an answer of Prometheus has 5 levels. The walk itself takes no memory by depth."""
MAX_SKIPPED_BYTES = 64 * 1024
"""Of an answer, for warnings and statistics that some servers add. Higher: stepping over braces costs a microsecond
each."""
MAX_LABELS = 64
"""Of a series: Prometheus itself takes 30 by default, where it has a limit."""
MAX_TEXT_BYTES = 512
"""Of a label's name or value, and of a key. The longest that the tuner reads is the name of a model."""

_W = rb"[ \t\r\n]*"
_SPACE = re.compile(_W)
_SCALAR = re.compile(rb"[-+.0-9A-Za-z]{1,64}")
_BRACKET = re.compile(rb'["\[\]{}]')
_SAMPLE = re.compile(
    rb"%(w)s\[%(w)s(-?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][-+]?[0-9]{1,3})?)%(w)s,"
    rb'%(w)s"([-+.0-9A-Za-z]{1,40})"%(w)s\]%(w)s([],}])' % {b"w": _W}
)
"""Time, value, and what follows."""


class NotPrometheus(ValueError):
    """The answer has not the documented form (prometheus.io/docs/prometheus/latest/querying/api)."""


def read_series(body: bytes, kind: str, most: int) -> Iterator[Series]:
    """The series of a `kind` (vector or matrix), each with `most` samples at most.

    Raises NotPrometheus, when it comes to the place: the series until then count for nothing.
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
    """A place in JSON that has not been checked. All methods raise NotPrometheus where something else stands."""

    def __init__(self, body: bytes) -> None:
        self._body, self._at, self._skipped = body, 0, 0

    def peek(self) -> bytes:
        """The next byte that is no space; none at the end."""
        self._at = self._matched(_SPACE).end()
        return self._body[self._at : self._at + 1]

    def members(self) -> Iterator[str]:
        """The keys of an object; whoever takes one has to read the value."""
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
        """The items of an array; whoever takes one has to read it."""
        self._take(b"[")
        if self.peek() == b"]":
            self._at += 1
            return
        while True:
            yield
            if not self._is_followed(b"]"):
                return

    def samples(self, most: int) -> list[tuple[float, float]]:
        """An array of them."""
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
        """Raises UnicodeDecodeError, too."""
        self.peek()
        start, self._at = self._at, self._end_of_string(MAX_TEXT_BYTES)
        written = self._body[start : self._at]
        try:
            return str(json.loads(written)) if b"\\" in written else written[1:-1].decode()
        except json.JSONDecodeError:
            raise NotPrometheus from None

    def skip(self) -> None:
        """Any value."""
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
        """Past a comma, or past the end."""
        token = self.peek()
        if token not in (b",", end):
            raise NotPrometheus
        self._at += 1
        return token != end

    def _end_of_string(self, limit: int) -> int:
        """Behind the quote that ends the string that begins here, which has at most `limit` bytes."""
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
