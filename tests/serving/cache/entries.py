"""Entries made by hand, for the ledger's tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from diffcache_core.cache.states import Entry, StateKind, StateRecord

KEY = np.array([0.6, 0.8], np.float32)


def entry(name: str, size: int = 4096, **changes: object) -> Entry:
    state = StateRecord(f"{name}-0", name, StateKind.CLEAN, 0, size, "sum")
    made = Entry(
        id=name,
        space="space",
        exact=f"exact-{name}",
        prompt_digest="p",
        prompt=f"prompt {name}",
        tenant="default",
        model="emoji@f00d",
        seed=1,
        steps=8,
        skipped=0,
        similarity=1.0,
        depth=0,
        parent="",
        created=1.0,
        states=(state,),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def trajectory(name: str, ks: tuple[int, ...]) -> Entry:
    states = tuple(StateRecord(f"{name}-{k}", name, StateKind.TRAJECTORY, k, 4096, "sum") for k in ks)
    return entry(name, states=(*states, StateRecord(f"{name}-0", name, StateKind.CLEAN, 0, 4096, "sum")))
