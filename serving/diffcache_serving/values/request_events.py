"""What happens to a request, for those who listen: metrics, quality comparisons, simulated caches."""

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
    """A request that got its picture, and how."""

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
    """Hears of one request. Every method is called on the event loop, returns at once and never raises; here it does
    nothing."""

    def encoded(self, query: CacheQuery) -> None:
        """The prompt has its key; the look-up comes next."""

    def drawn(self, states: Sequence[CapturedState], entry: str, *, flagged: bool) -> None:
        """The device is done. `entry`: the id under which the cache keeps the result, empty if it does not."""

    def not_finite(self, part: str) -> None:
        """NaN or infinity in what the model gave: `part` is one of metrics.NOT_FINITE_PARTS."""

    def answered(self, answered: Answered) -> None:
        """The picture is compressed: this is the last event."""


class RequestObserver(Protocol):
    def arrived(self, request: GenerationRequest) -> RequestListener:
        """A request has come, and nothing has been done about it yet. Returns who listens to it from now on."""
