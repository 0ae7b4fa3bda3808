"""The events of a request. Metrics, quality comparisons and simulated caches listen to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from diffcache_core.generation import GenerationRequest
from diffcache_serving.values.found import CapturedState, Found
from diffcache_serving.values.identity import CacheQuery


@dataclass(frozen=True)
class Answered:
    """A request that got its picture, and how the picture was made."""

    query: CacheQuery
    found: Found
    image: Image.Image
    flagged: bool  # by the safety checker: the picture is black
    seconds: Mapping[str, float]  # by phase, see metrics.PHASES
    total_seconds: float

    @property
    def request(self) -> GenerationRequest:
        return self.query.request


class RequestListener:
    """Gets the events of one request. This base class ignores them all.

    Every method is called on the event loop, returns at once and never raises.
    """

    def encoded(self, query: CacheQuery) -> None:
        """The prompt is encoded and has its key. The look-up is next."""

    def drawn(self, states: Sequence[CapturedState], entry: str, *, flagged: bool) -> None:
        """The device has finished. `entry` is the id of the entry in the cache, empty if the result is not kept."""

    def not_finite(self, part: str) -> None:
        """The output of the model holds NaN or infinity. `part` is one of metrics.NOT_FINITE_PARTS."""

    def answered(self, answered: Answered) -> None:
        """The picture is compressed. This is the last event."""


class RequestObserver(Protocol):
    def arrived(self, request: GenerationRequest) -> RequestListener:
        """A request has arrived; its processing has not begun. Returns the listener for its further events."""
