"""A cache of real parts in a folder, and keys and latents made by hand to fill it with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import LCBFU
from diffcache_core.cache.resume import Level, Levels
from diffcache_core.cache.states import StateKind
from diffcache_core.generation import GenerationRequest
from diffcache_serving.cache.cache import Cache
from diffcache_serving.cache.index import Index, MemoryIndex
from diffcache_serving.cache.ledger import Ledger
from diffcache_serving.cache.ledger_sqlite import SqliteLedger
from diffcache_serving.cache.store import StateStore
from diffcache_serving.metrics import Metrics
from diffcache_serving.values.found import CapturedState, Exact, Found, Miss, Resume
from diffcache_serving.values.identity import CacheIdentity
from diffcache_serving.values.text import TextEncoding

CLEAN, TRAJECTORY = StateKind.CLEAN, StateKind.TRAJECTORY
LEVELS = Levels((Level(25, 0.65), Level(50, 0.8)), reseed_skip_percent=25)
STATE_BYTES = 8192  # of one latent below, on disk
PATIENCE_SECONDS = 10.0  # the real deadline of a look-up would make misses where four test runs share two cores
ROOMY = Budget(2**20, 100)


def text(angle: float, prompt: int | None = None) -> TextEncoding:
    """A prompt whose key stands at an angle in degrees; the cosine between two is the cosine of the difference."""
    key = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))], np.float32)
    return TextEncoding(key, (round(angle * 1000) if prompt is None else prompt,), (), torch.empty(0), 3.0)


def degrees(similarity: float) -> float:
    return float(np.degrees(np.arccos(similarity)))


def states(value: float, ks: tuple[int, ...] = ()) -> list[CapturedState]:
    latent = {"latent": torch.full((1, 4, 16, 16), value)}
    return [*(CapturedState(TRAJECTORY, k, latent) for k in ks), CapturedState(CLEAN, 0, latent)]


def latent_of(found: Found) -> float:
    assert isinstance(found, Resume | Exact)
    return float(found.tensors["latent"].flatten()[0])


class Box:
    """A cache in a folder, that can be closed and opened again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def open(
        self,
        index: Index | None = None,
        ledger: Ledger | None = None,
        store: StateStore | None = None,
        kind: StateKind = CLEAN,
        budget: Budget = ROOMY,
        shared: bool = False,
        levels: Levels = LEVELS,
        look_up_seconds: float = PATIENCE_SECONDS,
        **identity: Any,
    ) -> Box:
        """`identity`: fields of CacheIdentity that differ from the usual ones."""
        self.metrics = Metrics("emoji")
        self.ledger = ledger or await SqliteLedger.open(self.folder / "ledger.db", LCBFU())
        self.index = index or MemoryIndex()
        usual = CacheIdentity("emoji", "f00d", "e", "float32", "DDIM", shared)
        self.identity = replace(usual, **identity)
        self.store = store or StateStore(self.folder / "states")
        parts = (self.ledger, self.store, self.index, self.metrics, self.identity)
        self.cache = Cache(*parts, levels, kind, budget, look_up_seconds=look_up_seconds)
        self.repaired = await self.cache.repair()
        self.is_closed = False
        return self

    async def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            await self.cache.close()

    async def keep(
        self,
        request: GenerationRequest,
        at: TextEncoding,
        value: float,
        found: Found | None = None,
        ks: tuple[int, ...] = (),
    ) -> str:
        entry = self.cache.keep(self.cache.query(request, at), found or Miss(), states(value, ks))
        await self.cache.settle()
        return entry

    async def look_up(self, request: GenerationRequest, at: TextEncoding) -> Found:
        return await self.cache.look_up(self.cache.query(request, at))

    def files(self) -> list[Path]:
        return sorted(p for p in (self.folder / "states").rglob("*") if p.is_file())

    def count(self, name: str, **labels: str) -> int:
        return self.metrics.value(f"diffcache_{name}", **labels)


def seeded(request: GenerationRequest, seed: int, *, explicit: bool = True, **changes: Any) -> GenerationRequest:
    return replace(request, seed=seed, seed_is_explicit=explicit, **changes)
