"""Finds what a request can start from: first an exact match, then the best resume among the nearest entries."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
import torch

from diffcache_core.cache.policies import credit_of_hit
from diffcache_core.cache.resume import Candidate, Decision, Levels, Limits, choose_resume, usable_k
from diffcache_core.cache.states import Entry, StateKind, StateRecord
from diffcache_serving.cache import codec
from diffcache_serving.cache.background import Background
from diffcache_serving.cache.events import CacheEvents, Drop
from diffcache_serving.cache.index import Index
from diffcache_serving.cache.keeper import Keeper
from diffcache_serving.cache.ledger import Ledger
from diffcache_serving.cache.store import StateStore
from diffcache_serving.values.errors import NotFinite
from diffcache_serving.values.found import Exact, Miss, Resume
from diffcache_serving.values.identity import CacheQuery

NEIGHBOURS, WIDENED = 16, 64
"""Number of rows that a search asks for: first NEIGHBOURS, then WIDENED if an unseen row could save more steps."""

LOAD_TRIES = 3
"""Maximum number of choices to load: the best, and two more if bytes are missing or damaged."""

log = structlog.get_logger("diffcache.cache")


@dataclass(frozen=True)
class LookUp:
    """Reads index, ledger and store, and the entries that the keeper has not written yet. Raises what they raise."""

    ledger: Ledger
    store: StateStore
    index: Index
    keeper: Keeper
    events: CacheEvents
    levels: Levels
    kind: StateKind
    background: Background

    async def find(self, query: CacheQuery) -> Exact | Resume | Miss:
        return await self._find_exact(query) or await self._find_resume(query)

    async def nearest(self, query: CacheQuery, before: float) -> Candidate | None:
        """Returns the most similar entry that was created before `before` (seconds since the epoch).

        With the time of the request this excludes its own picture and all pictures that resumed from it.
        """
        candidates, _ = await self._near(query, NEIGHBOURS, lambda entry: entry.created < before)
        return candidates[0] if candidates else None

    async def resume_at(self, candidate: Candidate, k: int) -> Resume | None:
        """Returns a resume from this entry at step `k`, even if the levels do not allow it. Records no hit.

        Returns None if the entry has no state for step `k`.
        """
        state = next((s for s in candidate.states if s.kind is self.kind and usable_k(s, k) == k), None)
        tensors = None if state is None else await self._load(state)
        if state is None or tensors is None:
            return None
        own_run = candidate.same_prompt and candidate.same_seed
        return Resume(
            k=k,
            depth=candidate.depth + 1,
            parent=candidate.entry_id,
            similarity=candidate.similarity,
            kind=self.kind,
            own_run=own_run,
            tensors=tensors,
            granted_skip=0,
            load_seconds=0.0,
        )

    async def _find_exact(self, query: CacheQuery) -> Exact | None:
        request = query.request
        if not request.seed_is_explicit:
            return None
        entry = self.keeper.pending.find_exact(query.exact) or await self.ledger.find_exact(query.exact)
        if entry is None or entry.skipped * 100 > request.max_skip_percent * entry.steps:
            return None
        if entry.similarity < request.min_similarity:  # the entry itself resumed from a less similar one than allowed
            return None
        final = next((s for s in entry.states if s.kind is StateKind.CLEAN), None)
        loading = time.perf_counter()
        tensors = None if final is None else await self._load(final)
        if final is None or tensors is None:
            return None
        self.background.start("hit", self._credit_exact(query, entry, final))
        return Exact(request.steps, entry.depth, entry.id, tensors, time.perf_counter() - loading)

    async def _find_resume(self, query: CacheQuery) -> Resume | Miss:
        if not self.levels.table:
            return Miss()
        decision = await self._decide(query)
        loading = time.perf_counter()
        for choice in decision.choices[:LOAD_TRIES]:
            tensors = await self._load(choice.state)
            if tensors is None:
                continue
            credit = credit_of_hit(choice.k, choice.k_without)
            self.background.start("hit", self._record_hit(choice.state, choice.k, credit))
            self.events.resumed(choice.similarity)
            uninterrupted = self.kind is StateKind.TRAJECTORY and choice.own_run
            return Resume(
                k=choice.k,
                depth=choice.depth + (0 if uninterrupted else 1),
                parent=choice.state.entry_id,
                similarity=choice.similarity,
                kind=choice.state.kind,
                own_run=choice.own_run,
                tensors=tensors,
                granted_skip=min(self.levels.skip_at(choice.similarity), query.request.max_skip_percent),
                load_seconds=time.perf_counter() - loading,
            )
        return Miss()

    async def _decide(self, query: CacheQuery, without: str = "") -> Decision:
        """Returns the choices among the nearest entries. `without` is the id of an entry to leave out, or empty."""
        request = query.request
        limits = Limits(request.steps, self.kind, request.min_similarity, request.max_skip_percent)
        decision = Decision((), conclusive=True)
        for limit in (NEIGHBOURS, WIDENED):
            candidates, unseen = await self._near(query, limit, lambda entry: entry.id != without)
            decision = choose_resume(candidates, self.levels, limits, unseen=unseen)
            if decision.conclusive:
                return decision
        self.events.search_inconclusive()
        return decision

    async def _near(
        self, query: CacheQuery, limit: int, is_wanted: Callable[[Entry], bool]
    ) -> tuple[list[Candidate], float | None]:
        """Returns the wanted ones of the nearest entries, most similar first.

        The second value is the highest similarity that a row can have which the search did not return. It is None if
        the search returned all rows.
        """
        space, key = query.space, query.text.key
        # Pending entries first: an entry that the keeper moves to the index meanwhile is then seen twice, never missed.
        waiting = self.keeper.pending.nearest(space, key, limit)
        near = await self.index.search(space, key, limit)
        unseen = near[-1].similarity if len(near) >= limit and math.isfinite(near[-1].similarity) else None
        near = [n for n in [*near, *waiting] if math.isfinite(n.similarity)]  # leaves out damaged rows
        found = {n.entry_id: max(-1.0, min(1.0, n.similarity)) for n in near}  # float32 may round a cosine above 1
        entries = await self.ledger.entries(list(found)) | self.keeper.pending.entries(list(found))
        dead = set(found) - set(entries)
        if dead:
            self.background.start("delete", self.index.delete(dead))
        near_first = sorted(entries.values(), key=lambda entry: -found[entry.id])
        candidates = [
            Candidate(
                entry_id=entry.id,
                similarity=found[entry.id],
                states=entry.states,
                depth=entry.depth,
                same_prompt=entry.prompt_digest == query.prompt,
                same_seed=entry.seed == query.request.seed,
            )
            for entry in near_first
            if is_wanted(entry) and entry.space == space
        ]
        return candidates, unseen

    async def _credit_exact(self, query: CacheQuery, entry: Entry, final: StateRecord) -> None:
        """Records an exact hit. Its credit is the number of steps that no other entry would have saved.

        This needs another search, so it runs in the background and does not delay the answer.
        """
        decision = await self._decide(query, without=entry.id) if self.levels.table else Decision((), True)
        without = decision.choices[0].k if decision.choices else 0
        await self._record_hit(final, query.request.steps, credit_of_hit(query.request.steps, without))

    async def _record_hit(self, state: StateRecord, k: int, credit: float) -> None:
        if self.keeper.pending.holds(state.entry_id):
            await self.keeper.settle()  # the ledger does not know it yet
        await self.ledger.record_hit(state.id, k, credit)

    async def _load(self, state: StateRecord) -> Mapping[str, torch.Tensor] | None:
        """Returns the tensors of a state, or None if they cannot be used.

        A state whose bytes are missing, damaged or not finite is also dropped.
        """
        pending = self.keeper.pending.load(state.entry_id, state.id)
        if pending is not None:
            return pending
        if not state.checksum:  # it was pending when it was chosen and is written now: intact, but this record is old
            return None
        try:
            data = await self.store.get(state.id)
            return await asyncio.to_thread(codec.decode, state.id, data, state.checksum)
        except FileNotFoundError:
            reason: Drop = "missing"
        except codec.DamagedState as error:
            reason = "damaged"
            log.warning("a damaged state is dropped", error=str(error))
        except NotFinite as error:
            reason = "not_finite"
            log.warning("a state that is not finite is dropped", state=state.id, error=str(error))
        self.background.start("delete", self.keeper.forget(state.id, reason))
        return None
