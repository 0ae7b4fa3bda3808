"""Pairs new prompts with parents, so that every similarity is measured often enough. Pure.

Each new prompt gets one parent in as many bins as possible, because its pairs share its runs without a cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from diffcache_serving.calibration.settings import BINS


class Half(StrEnum):
    """The halves of the concepts. Parents and new prompts are split alike, and no concept is in both halves."""

    FIT = "fit"
    REPORT = "report"


@dataclass(frozen=True)
class Universe:
    """All prompts. Row i of each field belongs to prompt i."""

    keys: np.ndarray  # (n, dim) float32, L2-normalised: the model's own keys
    concepts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]  # token ids; prompts with equal ids are the same for the model

    def similar(self, i: int, others: np.ndarray) -> np.ndarray:
        """Returns the cosine similarity of prompt i with each of `others`, (m,). It is -1 for equal token ids."""
        similarity = self.keys[others] @ self.keys[i]
        same = np.array([self.ids[j] == self.ids[i] for j in others], dtype=bool)
        return np.where(same, -1.0, similarity)


@dataclass(frozen=True)
class Partner:
    parent: int
    similarity: float


@dataclass(frozen=True)
class Unit:
    """One new prompt, its parents, and a random parent of another concept."""

    half: Half
    prompt: int
    partners: tuple[Partner, ...]
    random_parent: int

    @property
    def key(self) -> str:
        return f"pairs/{self.half.value}/{self.prompt}"


def split_concepts(concepts: Sequence[str], rng: np.random.Generator) -> dict[str, Half]:
    order = rng.permutation(sorted(set(concepts))).tolist()
    return {concept: (Half.FIT, Half.REPORT)[i % 2] for i, concept in enumerate(order)}


def plan_units(universe: Universe, pairs_per_bin: int, rng: np.random.Generator) -> list[Unit]:
    """Plans new prompts and parents: up to `pairs_per_bin` pairs in each bin, one half of them in each half of the
    concepts."""
    half_of = split_concepts(universe.concepts, rng)
    units: list[Unit] = []
    for half, wanted in ((Half.FIT, (pairs_per_bin + 1) // 2), (Half.REPORT, pairs_per_bin // 2)):
        members = np.array([i for i, concept in enumerate(universe.concepts) if half_of[concept] is half])
        units += _Planner(universe, half, members, wanted, rng).plan()
    return units


@dataclass
class _Planner:
    universe: Universe
    half: Half
    members: np.ndarray  # indexes of the half's prompts
    wanted: int  # pairs per bin
    rng: np.random.Generator
    filled: Counter[int] = field(default_factory=Counter)  # pairs so far, by bin
    uses: Counter[tuple[int, str]] = field(default_factory=Counter)  # pairs so far, by bin and parent's concept

    def plan(self) -> list[Unit]:
        """Takes one new prompt of every concept in turn, then a second one, until the bins are full or no prompt is
        left."""
        by_concept: dict[str, list[int]] = {}
        for i in self.members.tolist():
            by_concept.setdefault(self.universe.concepts[i], []).append(i)
        order = self.rng.permutation(sorted(by_concept)).tolist()
        units: list[Unit] = []
        while any(by_concept.values()) and not self._is_full():
            for concept in order:
                if by_concept[concept] and not self._is_full():
                    best = self._best_of(by_concept[concept])
                    by_concept[concept].remove(best)
                    units += self._unit(best)
        return units

    def _is_full(self) -> bool:
        return all(self.filled[b] >= self.wanted for b in range(len(BINS)))

    def _offers(self, i: int) -> dict[int, list[Partner]]:
        """Returns the possible parents of prompt i, by bin. Leaves out bins that are full."""
        similarity = self.universe.similar(i, self.members)
        offers: dict[int, list[Partner]] = {}
        for b, band in enumerate(BINS):
            if self.filled[b] < self.wanted:
                inside = np.flatnonzero((similarity >= band.low) & ((similarity < band.high) | (band.high >= 1)))
                if len(inside):
                    offers[b] = [Partner(int(self.members[j]), float(similarity[j])) for j in inside]
        return offers

    def _best_of(self, prompts: list[int]) -> int:
        """Returns the prompt that reaches most bins, a random one among equals. So its runs without a cache are used
        most."""
        reach = np.array([len(self._offers(i)) for i in prompts])
        return prompts[int(self.rng.choice(np.flatnonzero(reach == reach.max())))]

    def _unit(self, i: int) -> list[Unit]:
        partners = []
        for b, offers in self._offers(i).items():
            least = min(self.uses[b, self.universe.concepts[p.parent]] for p in offers)
            rare = [p for p in offers if self.uses[b, self.universe.concepts[p.parent]] == least]
            names = sorted({self.universe.concepts[p.parent] for p in rare})
            name = names[int(self.rng.integers(len(names)))]
            choices = [p for p in rare if self.universe.concepts[p.parent] == name]
            partners.append(choices[int(self.rng.integers(len(choices)))])
            self.uses[b, name] += 1
            self.filled[b] += 1
        if not partners:
            return []
        strangers = [j for j in self.members.tolist() if self.universe.concepts[j] != self.universe.concepts[i]]
        return [Unit(self.half, i, tuple(partners), strangers[int(self.rng.integers(len(strangers)))])]
