"""Reads the contents of the real cache, with which the simulated caches start."""

from __future__ import annotations

from diffcache_core.cache.policies import PolicyRecord
from diffcache_core.cache.states import StateKind
from diffcache_core.simulator.cache import RestoredState
from diffcache_serving.cache.ledger import Ledger
from diffcache_serving.cache.pieces import pieces
from diffcache_serving.simulated_caches.caches import Restored
from diffcache_serving.simulated_caches.events import digest, short
from diffcache_serving.simulated_caches.feed import request_of


async def read_ledger(ledger: Ledger, kind: StateKind) -> tuple[list[Restored], PolicyRecord]:
    """Returns every entry of the adopted family that has a state of `kind`, and the record of the policy.

    Raises what the ledger raises.
    """
    restored: list[Restored] = []
    for ids in pieces(sorted((await ledger.indexed_ids(kind)).mine)):
        entries = await ledger.entries(ids)
        for row in await ledger.keys(ids):
            entry = entries.get(row.entry_id)
            if entry is None:  # evicted between the two reads
                continue
            restored.append(
                Restored(
                    entry=entry.id,
                    space=short(entry.space),
                    key=row.key,
                    request=request_of(entry),
                    states=[RestoredState(s.kind, s.k, s.bytes, s.uses, s.score) for s in entry.states],
                    skipped=entry.skipped,
                    similarity=entry.similarity,
                    depth=entry.depth,
                    tenant=digest(entry.tenant),
                    text=digest(entry.prompt),
                )
            )
    return restored, await ledger.policy_record()
