"""When to stop asking something that does not answer. Pure: time comes in as `now`."""

from __future__ import annotations

FAILURES = 3
"""In a row, before it is skipped: fewer skips a healthy index after one slow search, more makes more requests wait."""

SKIP_SECONDS = 5.0
"""How long it is skipped: shorter finds out sooner that it is back, and costs a deadline each time it is not."""


class Breaker:
    def __init__(self) -> None:
        self._failures = 0
        self._closed_until = 0.0

    def allows(self, now: float) -> bool:
        return now >= self._closed_until

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self, now: float) -> None:
        self._failures += 1
        if self._failures >= FAILURES:
            self._closed_until = now + SKIP_SECONDS
