"""Sends the events of each request to the simulated caches: two calls per request, which never wait or raise."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from diffcache_core.cache.states import Entry, allocated_bytes
from diffcache_core.generation import GenerationRequest
from diffcache_core.recently_used import RecentlyUsed
from diffcache_core.simulator.cache import SimulatedRequest
from diffcache_serving.cache import codec
from diffcache_serving.cache.ledger import Target
from diffcache_serving.metrics import Metrics
from diffcache_serving.simulated_caches.events import Answered, Asked, Event, Purged, digest, short
from diffcache_serving.simulated_caches.stream import RequestStream
from diffcache_serving.values.found import CapturedState
from diffcache_serving.values.identity import CacheIdentity, CacheQuery
from diffcache_serving.values.request_events import RequestListener

_NO_KEY = np.empty(0, np.float32)

Signature = tuple[tuple[str, tuple[int, ...], str], ...]
"""Names, shapes and dtypes of the tensors of a state."""

SIZES_KEPT = 1000
"""Number of signatures whose size in bytes is remembered. There is a limit, because callers choose the picture size and
so the signature. Each takes 300 bytes, and computing one again costs a copy of a state."""


@dataclass
class Feed:
    """Converts the events of requests and puts them into the stream. Without a stream it does nothing."""

    identity: CacheIdentity
    metrics: Metrics
    stream: RequestStream | None = None
    _name: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _sizes: RecentlyUsed[Signature, int] = field(default_factory=lambda: RecentlyUsed(SIZES_KEPT))  # allocated bytes

    def arrived(self, request: GenerationRequest) -> RequestListener:
        return _Fed(self)

    def asked(self, query: CacheQuery) -> str:
        """Sends the event that a request arrived. Called before the look-up. Returns the ticket for `answered`."""
        if self.stream is None:
            return ""
        request, text = query.request, query.text
        ticket = f"{self._name}.{next(self._numbers)}"
        mode = request.cache_mode
        is_seen = text.has_key and (mode.reads or mode.writes)
        self._put(
            Asked(
                ticket,
                short(query.space),
                SimulatedRequest(
                    exact=short(query.exact),
                    prompt=short(query.prompt),
                    seed=request.seed,
                    steps=request.steps,
                    seed_is_explicit=request.seed_is_explicit,
                    reads=is_seen and mode.reads,
                    writes=is_seen and mode.writes,
                    min_similarity=request.min_similarity,
                    max_skip=request.max_skip_percent,
                ),
                text.key if is_seen else _NO_KEY,
                digest(request.tenant),
                digest(request.prompt),
            )
        )
        return ticket

    def answered(self, ticket: str, states: Iterable[CapturedState], entry: str, *, may_keep: bool) -> None:
        """Sends the event that a request was answered. Called after the real cache has decided what to keep.

        `entry` is the id of the entry in the real cache, or empty.
        """
        if self.stream is not None and ticket:
            self._put(Answered(ticket, may_keep, entry, {state.kind: self._size_of(state) for state in states}))

    def purged(self, target: Target) -> None:
        """Sends the event that `target` was purged from the real cache."""
        mine = self.identity.model_id
        if self.stream is None or target.model not in ("", mine, *mine.split("@")):
            return
        self._put(
            Purged(
                digest(target.tenant) if target.tenant else b"",
                digest(target.prompt) if target.prompt else b"",
                target.entry_id,
            )
        )

    def _put(self, event: Event) -> None:
        assert self.stream is not None
        if not self.stream.put(event):
            self.metrics.shadow_cache_dropped.inc()

    def _size_of(self, state: CapturedState) -> int:
        signature = tuple((name, tuple(t.shape), str(t.dtype)) for name, t in sorted(state.tensors.items()))
        size = self._sizes.get(signature)
        if size is not None:
            return size
        return self._sizes.put(signature, allocated_bytes(len(codec.encode(uuid.uuid4().hex, state.tensors))))


class _Fed(RequestListener):
    def __init__(self, feed: Feed) -> None:
        self._feed, self._ticket = feed, ""

    def encoded(self, query: CacheQuery) -> None:
        self._ticket = self._feed.asked(query)

    def drawn(self, states: Sequence[CapturedState], entry: str, *, flagged: bool) -> None:
        self._feed.answered(self._ticket, states, entry, may_keep=not flagged)


def request_of(entry: Entry) -> SimulatedRequest:
    """Returns the request that made an entry of the ledger."""
    return SimulatedRequest(short(entry.exact), short(entry.prompt_digest), entry.seed, entry.steps)
