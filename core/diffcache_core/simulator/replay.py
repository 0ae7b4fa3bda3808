"""Replays a stream of requests against a cache of `Clean` states and adds up the steps saved. Pure.

It drives the very functions that the serving process does (`choose_resume`, the policy's score, credit, prior,
admission) in the order in which its cache and ledger call them; only index, ledger and store are lists and a heap.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from diffcache_core.policies import (
    HitStatistics,
    Policy,
    StateUse,
    admits,
    credit_of_hit,
    prior_benefit,
    touch,
)
from diffcache_core.resume import Candidate, Choice, Decision, Levels, Limits, choose_resume
from diffcache_core.states import BLOCK_BYTES, StateKind, StateRecord

NEIGHBOURS, WIDENED = 16, 64  # as the serving process asks of its index


@dataclass(frozen=True)
class Neighbour:
    """An earlier request of the stream, by its position in it."""

    request: int
    similarity: float  # cosine of the two keys


@dataclass(frozen=True)
class ReplayRequest:
    """One request. `neighbours`: earlier requests by falling similarity, at least all above the lowest level."""

    prompt: str  # equal = the same prompt
    seed: int
    steps: int
    neighbours: Sequence[Neighbour]


@dataclass(frozen=True)
class ReplayOptions:
    """The cache that the stream runs against. `entries`: how many it holds; None = all."""

    policy: Policy
    levels: Levels
    entries: int | None = None
    admission: bool = True
    state_bytes: int = BLOCK_BYTES  # allocated, of every state: with equal sizes it scales the score and no more


@dataclass(frozen=True)
class ReplayOutcome:
    """What came of it, over all requests, misses included."""

    requests: int = 0
    exact: int = 0
    approximate: int = 0
    steps: int = 0
    skipped: int = 0
    evicted: int = 0
    refused: int = 0  # by admission
    inconclusive: int = 0  # look-ups in which an unseen entry could have saved more

    @property
    def steps_saved_ratio(self) -> float:
        return self.skipped / self.steps if self.steps else 0.0

    @property
    def hit_ratio(self) -> float:
        return (self.exact + self.approximate) / self.requests if self.requests else 0.0


def replay(requests: Iterable[ReplayRequest], options: ReplayOptions) -> ReplayOutcome:
    """Every request in order: look up, credit what was used, keep the result."""
    cache = _Cache(options)
    for position, request in enumerate(requests):
        cache.serve(position, request)
    return cache.outcome()


@dataclass
class _Cached:
    """An entry; its position in the stream is its id."""

    request: ReplayRequest
    record: StateRecord
    use: StateUse
    score: float


@dataclass
class _Cache:
    options: ReplayOptions
    living: dict[int, _Cached] = field(default_factory=dict)
    exact: dict[tuple[str, int, int], int] = field(default_factory=dict)
    order: list[tuple[float, int, int]] = field(default_factory=list)  # heap; rows of an older score stay in it
    clock: int = 0
    age: float = 0.0
    hits: int = 0
    credits: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)

    def serve(self, position: int, request: ReplayRequest) -> None:
        self._count("requests", 1)
        self._count("steps", request.steps)
        twin = self.exact.get(_identity(request))
        if twin is not None:
            self._serve_exact(twin, request)
            return
        decision = self._decide(request)
        choice = decision.choices[0] if decision.choices else None
        if not decision.conclusive:
            self._count("inconclusive", 1)
        if choice is not None:
            self._count("approximate", 1)
            self._count("skipped", choice.k)
            self._hit(int(choice.state.entry_id), credit_of_hit(choice.k, choice.k_without))
        self._keep(position, request, choice)

    def outcome(self) -> ReplayOutcome:
        return ReplayOutcome(**self.counts)

    def _serve_exact(self, twin: int, request: ReplayRequest) -> None:
        """Nothing is left to run, and nothing new to keep."""
        self._count("exact", 1)
        self._count("skipped", request.steps)
        others = self._decide(request, without=twin).choices
        self._hit(twin, credit_of_hit(request.steps, others[0].k if others else 0))

    def _decide(self, request: ReplayRequest, without: int | None = None) -> Decision:
        """The choice among the nearest living entries; as in the serving process the search may widen once."""
        limits = Limits(request.steps, StateKind.CLEAN)
        decision = Decision((), conclusive=True)
        for limit in (NEIGHBOURS, WIDENED):
            candidates, unseen = self._candidates(request, limit, without)
            decision = choose_resume(candidates, self.options.levels, limits, unseen=unseen)
            if decision.conclusive:
                break
        return decision

    def _candidates(
        self, request: ReplayRequest, limit: int, without: int | None
    ) -> tuple[list[Candidate], float | None]:
        """Up to `limit` living neighbours, and the last one's similarity when there are more."""
        found: list[Candidate] = []
        for neighbour in request.neighbours:
            cached = self.living.get(neighbour.request)
            if cached is None or neighbour.request == without:
                continue
            if len(found) == limit:
                return found, found[-1].similarity
            found.append(
                Candidate(
                    entry_id=cached.record.entry_id,
                    similarity=neighbour.similarity,
                    states=(cached.record,),
                    same_prompt=cached.request.prompt == request.prompt,
                    same_seed=cached.request.seed == request.seed,
                )
            )
        return found, None

    def _hit(self, position: int, credit: float) -> None:
        cached = self.living[position]
        self.clock += 1
        self._put(position, cached, touch(cached.use, credit, self.clock, self.age))
        self.hits += 1
        self.credits += credit

    def _keep(self, position: int, request: ReplayRequest, choice: Choice | None) -> None:
        options = self.options
        is_full = options.entries is not None and len(self.living) + 1 > options.entries
        granted = options.levels.skip_at(choice.similarity) if choice is not None else 0
        if options.admission and not admits(is_full=is_full, granted_skip=granted, top_skip=options.levels.top_skip):
            self._count("refused", 1)
            return
        if is_full:
            if not options.entries:
                return
            self._evict()
        self.clock += 1
        prior = prior_benefit(HitStatistics(self.hits, self.credits))
        use = StateUse(options.state_bytes, request.steps, prior, 0, self.clock, self.clock, self.age)
        name = str(position)
        record = StateRecord(name, name, StateKind.CLEAN, 0, options.state_bytes, "")
        self.living[position] = cached = _Cached(request, record, use, 0.0)
        self.exact[_identity(request)] = position
        self._put(position, cached, use)

    def _put(self, position: int, cached: _Cached, use: StateUse) -> None:
        cached.use, cached.score = use, self.options.policy.score(use)
        heapq.heappush(self.order, (cached.score, use.created, position))

    def _evict(self) -> None:
        """The lowest score goes, the age rises to it. Rows whose score has changed since are passed over."""
        while True:
            score, _, position = heapq.heappop(self.order)
            cached = self.living.get(position)
            if cached is not None and cached.score == score:
                break
        self.age = max(self.age, score)
        del self.living[position]
        del self.exact[_identity(cached.request)]
        self._count("evicted", 1)

    def _count(self, name: str, amount: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount


def _identity(request: ReplayRequest) -> tuple[str, int, int]:
    return request.prompt, request.seed, request.steps
