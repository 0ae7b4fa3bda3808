"""A circuit breaker: decides when to stop calling a service that does not answer. Pure: `now` is a parameter."""

from __future__ import annotations

FAILURES = 3
"""Number of failures in a row before look-ups are skipped. With a lower value one slow search may skip a healthy index;
with a higher value more requests wait."""

SKIP_SECONDS = 5.0
"""How long look-ups are skipped. A shorter time detects a recovery sooner, but each failed try costs a deadline."""


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
