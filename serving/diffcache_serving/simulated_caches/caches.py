"""The simulated caches. Each request goes through all of them. No threads, no waits.

A cache of m times the capacity has m times its bytes. The limit on entries is the same for all, because it comes from
the index, and more capacity would not change it.

There is no sampling. Spatial sampling (SHARDS, FAST'15) selects requests by a hash of their key and shrinks the cache
in proportion. That is correct if a request is served by an equal key. Here it is served by a *similar* key, whose hash
is unrelated: a tenth of the entries lacks most neighbours, so a sampled cache saves less at every size and its knee is
not the real one. Instead, a cache that grows past `MAX_ENTRIES` is given up and no longer exported.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import Policy, PolicyRecord
from diffcache_core.cache.resume import Levels
from diffcache_core.cache.states import StateKind
from diffcache_core.names import SHADOW_MULTIPLES
from diffcache_core.recently_used import RecentlyUsed
from diffcache_core.simulator.cache import MISS, Outcome, RestoredState, SimulatedCache, SimulatedRequest
from diffcache_serving.simulated_caches.events import Answered, Asked, Event, Purged
from diffcache_serving.simulated_caches.keys import KeyTable

MAX_ENTRIES = 50_000
"""Maximum number of entries of one simulated cache. At 512 dimensions its keys take 100 MB, the data of each cache
about an entry 1.1 KiB, and a search 10 ms of one core (measured, benchmarks/shadow_caches.py). A higher value can
simulate larger caches at that cost."""

WAITING = 10_000
"""Maximum number of requests without an answer. Beyond it the oldest are forgotten; they were probably cancelled."""

SPACES_KEPT = 10_000
"""Number of spaces whose state sizes are remembered. There is a limit, because callers choose spaces with negative
prompts, guidance and picture sizes. Each takes 400 bytes. The simulated caches that missed an exact hit do not keep it
if its space was forgotten."""

WINDOW = 1000
"""Number of recent requests in the exported ratio. A higher value is steadier, a lower one shows a change sooner."""


@dataclass(frozen=True)
class Restored:
    """An entry of the real ledger, with which the simulated caches start."""

    entry: str
    space: bytes
    key: np.ndarray
    request: SimulatedRequest
    states: Sequence[RestoredState]
    skipped: int
    similarity: float
    depth: int
    tenant: bytes = b""
    text: bytes = b""


@dataclass(frozen=True)
class _Named:
    """The values by which a purge selects entries."""

    tenant: bytes
    text: bytes
    entry: str


@dataclass(frozen=True)
class _Waiting:
    asked: Asked
    outcomes: Mapping[int, Outcome]  # by cache


class CachesBySize:
    """Simulated caches of several sizes. `on_answer(multiple, steps, skipped)` is called for each request and cache."""

    def __init__(
        self,
        policy: Policy,
        levels: Levels,
        kind: StateKind,
        budget: Budget,
        on_answer: Callable[[float, int, int], None] = lambda multiple, steps, skipped: None,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self.multiples = SHADOW_MULTIPLES
        self.kind, self._policy, self._on_answer, self._max_entries = kind, policy, on_answer, max_entries
        self._levels, self._budget = levels, budget
        self._table = KeyTable(len(self.multiples))
        self._caches = {i: self._made(i, None) for i in range(len(self.multiples))}
        self._names: dict[int, _Named] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._sizes: RecentlyUsed[bytes, dict[StateKind, int]] = RecentlyUsed(SPACES_KEPT)  # latest sizes by space
        self._window: deque[tuple[int, Mapping[int, int]]] = deque(maxlen=WINDOW)  # steps, and skipped steps by cache
        self._entries = 0  # the last entry id

    def __len__(self) -> int:
        """Returns the number of entries that at least one cache holds."""
        return len(self._table)

    @property
    def key_bytes(self) -> int:
        return self._table.nbytes

    def size_of(self, multiple: float) -> int:
        """Returns the number of entries of one cache."""
        return len(self._caches[self.multiples.index(multiple)])

    def ratios(self) -> dict[float, float]:
        """Returns the steps saved ratio over the last requests, by multiple of the capacity. Empty before the first
        request."""
        steps = sum(asked for asked, _ in self._window)
        if not steps:
            return {}
        return {self.multiples[i]: sum(skipped.get(i, 0) for _, skipped in self._window) / steps for i in self._caches}

    def take(self, event: Event) -> None:
        if isinstance(event, Asked):
            self._ask(event)
        elif isinstance(event, Answered):
            self._answer(event)
        else:
            self._purge(event)

    def restore(self, entries: Iterable[Restored], record: PolicyRecord) -> None:
        """Fills the empty caches with the entries of the real cache. A smaller cache takes those with the highest
        scores."""
        for cache in self._caches.values():
            cache.continue_from(record)
        rows = sorted(entries, key=lambda e: -max((s.score for s in e.states), default=0.0))
        for row in rows:
            self._sized(row.space, {state.kind: state.bytes for state in row.states})
            entry = self._new(row.space, row.key, _Named(row.tenant, row.text, row.entry))
            for cache in self._caches.values():
                cache.restore(
                    entry,
                    row.request,
                    row.states,
                    skipped=row.skipped,
                    similarity=row.similarity,
                    depth=row.depth,
                )
            self._sweep(entry)
        self._give_up_too_large()

    def rebase(self, levels: Levels, budget: Budget) -> None:
        """Uses other levels or another capacity from now on.

        The cache at 1x keeps its entries, as the real cache does. Each other cache continues from the old cache whose
        size is nearest to its new size: the smallest that is at least as large, or else the largest. The window is
        cleared.
        """
        if levels == self._levels and budget == self._budget:
            return
        old = {i: (self.multiples[i] * self._budget.bytes, cache) for i, cache in self._caches.items()}
        is_resized = budget != self._budget
        self._levels, self._budget = levels, budget
        self._window.clear()
        if not is_resized:
            for cache in self._caches.values():
                cache.levels = levels
            return
        sources = {i: _source(i, self._budget_at(i).bytes, self.multiples, old) for i in range(len(self.multiples))}
        clones = {i: source.clone() for i, source in sources.items() if source is not None}
        held = {i: set(cache.entries()) for i, cache in clones.items()}
        for i, entries in held.items():  # hold before letting go, so that a key that moves is not freed in between
            for entry in entries:
                self._table.hold(i, entry)
        for i, (_, cache) in old.items():
            for entry in set(cache.entries()) - held.get(i, set()):
                self._let_go(i, entry)
        self._caches = {i: self._made(i, clone) for i, clone in clones.items()}
        for i, cache in self._caches.items():
            cache.resize(self._budget_at(i))

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _ask(self, asked: Asked) -> None:
        outcomes: dict[int, Outcome] = {}
        if asked.request.reads and len(asked.key):
            near = self._table.near(asked.space, asked.key, self._levels.floor)
            for i, cache in self._caches.items():
                outcomes[i] = cache.look_up(asked.request, partial(near.of, i))
        self._waiting[asked.ticket] = _Waiting(asked, outcomes)
        if len(self._waiting) > WAITING:
            del self._waiting[next(iter(self._waiting))]

    def _answer(self, answered: Answered) -> None:
        waiting = self._waiting.pop(answered.ticket, None)
        if waiting is None:
            return
        asked, outcomes = waiting.asked, waiting.outcomes
        request = asked.request
        skipped = {i: outcomes.get(i, MISS).k for i in self._caches}
        self._window.append((request.steps, skipped))
        for i in self._caches:
            self._on_answer(self.multiples[i], request.steps, skipped[i])
        sizes = self._sized(asked.space, answered.sizes)
        if not (answered.may_keep and request.writes and len(asked.key) and sizes):
            return
        sizes = {kind: sizes.get(kind, max(sizes.values())) for kind in StateKind}
        entry = self._new(asked.space, asked.key, _Named(asked.tenant, asked.text, answered.entry))
        for i, cache in self._caches.items():
            cache.keep(entry, request, outcomes.get(i, MISS), sizes)
        self._sweep(entry)
        self._give_up_too_large()

    def _sized(self, space: bytes, sizes: Mapping[StateKind, int]) -> dict[StateKind, int]:
        """Adds the newly measured `sizes` to those of the space, and returns all sizes in bytes by kind of state."""
        return self._sizes.put(space, {**(self._sizes.get(space) or {}), **sizes})

    def _purge(self, purged: Purged) -> None:
        meant = [
            entry
            for entry, named in self._names.items()
            if purged.tenant in (b"", named.tenant)
            and purged.text in (b"", named.text)
            and purged.entry in ("", named.entry)
        ]
        for cache in self._caches.values():
            cache.drop(meant)

    def _new(self, space: bytes, key: np.ndarray, named: _Named) -> int:
        self._entries += 1
        self._table.add(self._entries, space, key)
        self._names[self._entries] = named
        return self._entries

    def _sweep(self, entry: int) -> None:
        if entry in self._names and self._table.sweep(entry):
            del self._names[entry]

    def _let_go(self, cache: int, entry: int) -> None:
        if self._table.let_go(cache, entry):
            del self._names[entry]

    def _budget_at(self, cache: int) -> Budget:
        return Budget(self._budget.bytes * self.multiples[cache], self._budget.entries)

    def _made(self, i: int, like: SimulatedCache | None) -> SimulatedCache:
        cache = like or SimulatedCache(self._policy, self._levels, self._budget_at(i), self.kind)
        cache.levels = self._levels
        cache.on_admitted, cache.on_evicted = partial(self._table.hold, i), partial(self._let_go, i)
        return cache

    def _give_up_too_large(self) -> None:
        for i, cache in list(self._caches.items()):
            if len(cache) > self._max_entries:
                cache.drop(cache.entries())
                del self._caches[i]


def _source(
    i: int, size: float, multiples: Sequence[float], old: Mapping[int, tuple[float, SimulatedCache]]
) -> SimulatedCache | None:
    if multiples[i] == 1.0:
        return old[i][1] if i in old else None
    larger = [held for held in old.values() if held[0] >= size]
    if larger:
        return min(larger, key=lambda held: held[0])[1]
    return max(old.values(), key=lambda held: held[0])[1] if old else None
