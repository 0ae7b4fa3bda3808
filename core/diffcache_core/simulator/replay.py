"""Replays a stream of requests on a simulated cache of `Clean` states and sums the steps saved. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import Policy
from diffcache_core.cache.resume import Levels
from diffcache_core.cache.states import BLOCK_BYTES, StateKind
from diffcache_core.simulator.cache import Neighbour, SimulatedCache, SimulatedRequest


@dataclass(frozen=True)
class ReplayRequest:
    """One request. `neighbours`: earlier requests as positions in the stream, by falling similarity; at least all above
    the lowest level."""

    prompt: str  # equal = the same prompt
    seed: int
    steps: int
    neighbours: Sequence[Neighbour]


@dataclass(frozen=True)
class ReplayOptions:
    """The cache for the stream. `entries`: the most that it holds; None: no limit."""

    policy: Policy
    levels: Levels
    entries: int | None = None
    admission: bool = True
    state_bytes: int = BLOCK_BYTES  # allocated bytes of every state: equal sizes only scale the score


@dataclass(frozen=True)
class ReplayOutcome:
    """The result over all requests, including misses."""

    requests: int = 0
    exact: int = 0
    approximate: int = 0
    steps: int = 0
    skipped: int = 0
    evicted: int = 0
    refused: int = 0  # by admission
    inconclusive: int = 0  # look-ups for which an unseen entry could have saved more

    @property
    def steps_saved_ratio(self) -> float:
        return self.skipped / self.steps if self.steps else 0.0

    @property
    def hit_ratio(self) -> float:
        return (self.exact + self.approximate) / self.requests if self.requests else 0.0


def replay(requests: Iterable[ReplayRequest], options: ReplayOptions) -> ReplayOutcome:
    """Runs all requests in order: each looks up, credits the state it used, and keeps its result under its position in
    the stream."""
    budget = Budget(entries=inf if options.entries is None else options.entries)
    cache = SimulatedCache(options.policy, options.levels, budget, admission=options.admission)
    sizes = {StateKind.CLEAN: options.state_bytes}
    count = exact = approximate = steps = skipped = inconclusive = 0
    for position, request in enumerate(requests):
        asked = SimulatedRequest(
            (request.prompt, request.seed, request.steps), request.prompt, request.seed, request.steps
        )
        outcome = cache.look_up(asked, _Nearest(cache, request.neighbours))
        cache.keep(position, asked, outcome, sizes)
        count += 1
        steps += request.steps
        skipped += outcome.k
        exact += outcome.is_exact
        approximate += outcome.k > 0 and not outcome.is_exact
        inconclusive += not outcome.is_conclusive
    return ReplayOutcome(count, exact, approximate, steps, skipped, cache.evicted, cache.refused, inconclusive)


@dataclass(frozen=True)
class _Nearest:
    """Finds the neighbours that the cache still holds."""

    cache: SimulatedCache
    neighbours: Sequence[Neighbour]

    def __call__(self, limit: int) -> tuple[Sequence[Neighbour], bool]:
        found: list[Neighbour] = []
        for neighbour in self.neighbours:
            if neighbour.entry in self.cache:
                if len(found) == limit:
                    return found, True
                found.append(neighbour)
        return found, False
