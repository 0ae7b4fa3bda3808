"""A simulated cache with keys only, for one request at a time. Pure. The replay, the simulated caches and the simulated
loops use it.

It calls the same functions as the serving process (`choose_resume`, the policy's score, credit, prior, admission) in
the same order as its cache and ledger. Only index, ledger and store are replaced by dicts and a heap.
"""

from __future__ import annotations

import copy
import heapq
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from diffcache_core.cache.budget import NO_LIMIT, Budget
from diffcache_core.cache.policies import (
    HitStatistics,
    Policy,
    PolicyRecord,
    StateUse,
    admits,
    credit_of_hit,
    prior_benefit,
    touch,
    trajectory_weights,
)
from diffcache_core.cache.resume import Candidate, Decision, Levels, Limits, checkpoints, choose_resume
from diffcache_core.cache.states import StateKind, StateRecord

NEIGHBOURS, WIDENED = 16, 64  # limits of the serving process's searches in its index


@dataclass(frozen=True, slots=True)
class SimulatedRequest:
    """The parts of a request that the cache uses, except its key."""

    exact: Hashable  # equal = the same request
    prompt: Hashable  # equal = the same prompt
    seed: int
    steps: int
    seed_is_explicit: bool = True
    reads: bool = True
    writes: bool = True
    min_similarity: float = -1.0
    max_skip: int = 100  # percent


@dataclass(frozen=True, slots=True)
class Neighbour:
    entry: int
    similarity: float  # cosine of the two keys


class Nearest(Protocol):
    def __call__(self, limit: int) -> tuple[Sequence[Neighbour], bool]:
        """Returns up to `limit` entries of the cache, most similar first, and whether there may be more above the
        lowest level."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the cache gave to a request."""

    k: int = 0  # steps skipped
    is_exact: bool = False
    similarity: float | None = None  # to the entry from which it resumed
    granted_skip: int = 0  # percent
    depth: int = 0  # depth of the result
    is_conclusive: bool = True  # no unseen entry could have saved more


MISS = Outcome()


@dataclass(frozen=True, slots=True)
class RestoredState:
    """A state as a ledger stores it."""

    kind: StateKind
    k: int
    bytes: int
    uses: int
    score: float


@dataclass(slots=True)
class _State:
    entry: int
    kind: StateKind
    k: int
    use: StateUse
    score: float

    @property
    def id(self) -> str:
        return f"{self.entry}.{self.kind}.{self.k}"


@dataclass(slots=True)
class _Entry:
    request: SimulatedRequest
    skipped: int
    similarity: float  # to its parent; 1.0 if it ran from pure noise
    depth: int
    states: tuple[_State, ...]


def _nobody(entry: int) -> None: ...


@dataclass
class SimulatedCache:
    """The simulated cache. It calls `on_admitted` and `on_evicted` with the id that `keep` got for the entry."""

    policy: Policy
    levels: Levels
    budget: Budget = NO_LIMIT
    kind: StateKind = StateKind.CLEAN
    admission: bool = True
    on_admitted: Callable[[int], None] = _nobody
    on_evicted: Callable[[int], None] = _nobody
    evicted: int = 0  # states
    refused: int = 0  # results, by admission
    bytes: int = 0
    statistics: HitStatistics = field(default_factory=HitStatistics)
    _living: dict[int, _Entry] = field(default_factory=dict)
    _exact: dict[Hashable, int] = field(default_factory=dict)
    _states: int = 0
    _order: list[tuple[float, int, int, int, _State]] = field(default_factory=list)  # heap; rows may be out of date
    _rows: int = 0  # rows put into the heap so far: this number in a row prevents the comparison of states
    _clock: int = 0
    _age: float = 0.0
    _grants: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._living)

    def __contains__(self, entry: object) -> bool:
        return entry in self._living

    def entries(self) -> list[int]:
        """Returns the ids of all entries, in the order of insertion."""
        return list(self._living)

    # ---- a request -------------------------------------------------------------------------------------------------

    def look_up(self, request: SimulatedRequest, nearest: Nearest) -> Outcome:
        """Returns what the request gets. The state that serves it is credited at once."""
        if not request.reads:
            return MISS
        twin = self._twin(request)
        if twin is not None:
            others = self._decide(request, nearest, without=twin).choices
            final = next(s for s in self._living[twin].states if s.kind is StateKind.CLEAN)
            credit = credit_of_hit(request.steps, others[0].k if others else 0)
            self._hit(final, request.steps, credit)
            return Outcome(request.steps, is_exact=True, granted_skip=100)
        decision = self._decide(request, nearest)
        if not decision.choices:
            return Outcome(is_conclusive=decision.conclusive)
        choice = decision.choices[0]
        entry = self._living[int(choice.state.entry_id)]
        state = next(s for s in entry.states if s.id == choice.state.id)
        self._hit(state, choice.k, credit_of_hit(choice.k, choice.k_without))
        is_same_run = self.kind is StateKind.TRAJECTORY and choice.own_run
        return Outcome(
            choice.k,
            similarity=choice.similarity,
            granted_skip=min(self.levels.skip_at(choice.similarity), request.max_skip),
            depth=choice.depth + (0 if is_same_run else 1),
            is_conclusive=decision.conclusive,
        )

    def keep(
        self, entry: int, request: SimulatedRequest, outcome: Outcome, state_bytes: Mapping[StateKind, int]
    ) -> bool:
        """Keeps the result under the new id `entry`. Returns whether it was kept. `state_bytes`: allocated bytes by
        kind of state."""
        if not request.writes or outcome.is_exact:
            return False
        is_full = self.admission and self._is_full
        if not admits(is_full=is_full, granted_skip=outcome.granted_skip, top_skip=self.levels.top_skip):
            self.refused += 1
            return False
        left = [(StateKind.CLEAN, 0)]
        if self.kind is StateKind.TRAJECTORY and outcome.k == 0:
            left = [(StateKind.TRAJECTORY, k) for k in checkpoints(self.levels, request.steps)] + left
        sizes = [state_bytes[kind] for kind, _ in left]
        if sum(sizes) > self.budget.bytes or self.budget.entries < 1:
            return False
        self._reserve(1, sum(sizes))
        older = self._exact.get(request.exact)
        if older is not None:
            self.drop([older])
        self._clock += 1
        prior = prior_benefit(self.statistics)
        saves = [k or request.steps for _, k in left]  # steps that a hit can save at most
        weights = trajectory_weights(tuple(sorted(saves)), self._grants)
        states = []
        for (kind, k), size, most in zip(left, sizes, saves, strict=True):
            use = StateUse(size, most, prior * weights[most], 0, self._clock, self._clock, self._age)
            states.append(_State(entry, kind, k, use, self.policy.score(use)))
        similarity = 1.0 if outcome.similarity is None else outcome.similarity
        self._admit(entry, _Entry(request, outcome.k, similarity, outcome.depth, tuple(states)))
        return True

    # ---- everything else -------------------------------------------------------------------------------------------

    def continue_from(self, record: PolicyRecord) -> None:
        """Takes over what a ledger's policy remembers. To be called before `restore`."""
        self._age, self.statistics, self._grants = record.age, record.statistics, dict(record.grants)

    def restore(
        self,
        entry: int,
        request: SimulatedRequest,
        states: Sequence[RestoredState],
        *,
        skipped: int = 0,
        similarity: float = 1.0,
        depth: int = 0,
    ) -> bool:
        """Takes over an entry of a ledger. Returns False, and does not take it, if it does not fit or is already there.

        A ledger has a state's score, but not its benefit. benefit = (score - L) bytes keeps its rank, and is at most
        the benefit in LCBFU, because L has risen since.
        """
        if self._exceeds(1, sum(state.bytes for state in states)) or request.exact in self._exact:
            return False
        self._clock += 1
        taken = []
        for state in states:
            benefit = max(0.0, state.score - self._age) * state.bytes
            most = state.k or request.steps
            use = StateUse(state.bytes, most, benefit, state.uses, self._clock, self._clock, self._age)
            taken.append(_State(entry, state.kind, state.k, use, state.score))
        self._admit(entry, _Entry(request, skipped, similarity, depth, tuple(taken)))
        return True

    def resize(self, budget: Budget) -> None:
        """Sets another budget, and evicts what no longer fits."""
        self.budget = budget
        self._reserve(0, 0)

    def drop(self, entries: Iterable[int]) -> None:
        """Removes entries, as a purge does: the age does not rise."""
        for entry in entries:
            cached = self._living.get(entry)
            if cached is not None:
                for state in cached.states:
                    self._drop(state)

    def clone(self) -> SimulatedCache:
        """Returns a copy of the cache. It calls no callback for the entries that it holds."""
        other = copy.copy(self)
        other._living = {
            i: _Entry(e.request, e.skipped, e.similarity, e.depth, tuple(copy.copy(s) for s in e.states))
            for i, e in self._living.items()
        }
        other._exact, other._grants = dict(self._exact), dict(self._grants)
        other._rebuild_order()
        return other

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _twin(self, request: SimulatedRequest) -> int | None:
        """Returns the entry of an equal request, if its run is within this request's limits; else None."""
        found = self._exact.get(request.exact) if request.seed_is_explicit else None
        if found is None:
            return None
        entry = self._living[found]
        if entry.skipped * 100 > request.max_skip * entry.request.steps or entry.similarity < request.min_similarity:
            return None
        return found if any(state.kind is StateKind.CLEAN for state in entry.states) else None

    def _decide(self, request: SimulatedRequest, nearest: Nearest, without: int | None = None) -> Decision:
        """Chooses among the nearest entries. As in the serving process, the search may widen once."""
        limits = Limits(request.steps, self.kind, request.min_similarity, request.max_skip)
        decision = Decision((), conclusive=True)
        if not self.levels.table:
            return decision
        for limit in (NEIGHBOURS, WIDENED):
            near, has_more = nearest(limit)
            candidates = [self._candidate(n, request) for n in near if n.entry != without]
            unseen = near[-1].similarity if has_more else None
            decision = choose_resume(candidates, self.levels, limits, unseen=unseen)
            if decision.conclusive:
                break
        return decision

    def _candidate(self, near: Neighbour, request: SimulatedRequest) -> Candidate:
        cached = self._living[near.entry]
        name = str(near.entry)
        return Candidate(
            entry_id=name,
            similarity=near.similarity,
            states=tuple(StateRecord(s.id, name, s.kind, s.k, s.use.bytes, "") for s in cached.states),
            same_prompt=cached.request.prompt == request.prompt,
            same_seed=cached.request.seed == request.seed,
            depth=cached.depth,
        )

    def _hit(self, state: _State, k: int, credit: float) -> None:
        self._clock += 1
        state.use = touch(state.use, credit, self._clock, self._age)
        state.score = self.policy.score(state.use)
        self._put(state)
        self.statistics = HitStatistics(self.statistics.hits + 1, self.statistics.credits + credit)
        self._grants[k] = self._grants.get(k, 0) + 1

    @property
    def _is_full(self) -> bool:
        """True if one more state of mean size would evict another one."""
        return self._exceeds(1, self.bytes // self._states if self._states else 0)

    def _exceeds(self, entries: int, size: int) -> bool:
        return len(self._living) + entries > self.budget.entries or self.bytes + size > self.budget.bytes

    def _reserve(self, entries: int, size: int) -> None:
        """Evicts the states with the lowest scores until `entries` entries and `size` bytes more fit. The age rises to
        each score. Rows that are out of date are skipped."""
        while self._living and self._exceeds(entries, size):
            score, _, _, _, state = heapq.heappop(self._order)
            if not self._is_current(score, state):
                continue
            self._age = max(self._age, score)
            self.evicted += 1
            self._drop(state)

    def _admit(self, name: int, entry: _Entry) -> None:
        self._living[name] = entry
        self._exact[entry.request.exact] = name
        for state in entry.states:
            self.bytes += state.use.bytes
            self._states += 1
            self._put(state)
        self.on_admitted(name)

    def _drop(self, state: _State) -> None:
        entry = self._living[state.entry]
        entry.states = tuple(s for s in entry.states if s is not state)
        self.bytes -= state.use.bytes
        self._states -= 1
        if not entry.states:
            del self._living[state.entry]
            if self._exact.get(entry.request.exact) == state.entry:
                del self._exact[entry.request.exact]
            self.on_evicted(state.entry)

    def _put(self, state: _State) -> None:
        self._rows += 1
        heapq.heappush(self._order, (state.score, state.use.created, state.entry, self._rows, state))
        if len(self._order) > 2 * self._states + WIDENED:  # every hit leaves an outdated row
            self._rebuild_order()

    def _is_current(self, score: float, state: _State) -> bool:
        entry = self._living.get(state.entry)
        return entry is not None and score == state.score and any(s is state for s in entry.states)

    def _rebuild_order(self) -> None:
        states = [state for entry in self._living.values() for state in entry.states]
        self._order = [(s.score, s.use.created, s.entry, row, s) for row, s in enumerate(states)]
        self._rows = len(states)
        heapq.heapify(self._order)
