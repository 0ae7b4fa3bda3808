"""Measures whether quality drifts if a resumed picture is the parent of the next one.

In a chain each prompt is similar to the previous one and resumes from its final latent. The control has the same
prompt, seed and k, but its parent was drawn from noise. The difference is the cost of depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffcache_serving.calibration.bench import Bench
from diffcache_serving.calibration.pairs import Universe
from diffcache_serving.calibration.settings import Band, Skip
from diffcache_serving.calibration.statistics import Estimate, estimate

TRIES = 50  # number of first prompts to try for one chain: in a narrow band most walks end early


@dataclass(frozen=True)
class ChainSetting:
    """A granted level, with the similarities for which it is used."""

    skip: Skip
    band: Band


@dataclass(frozen=True)
class Chain:
    setting: ChainSetting
    prompts: tuple[int, ...]  # the first is drawn from noise; each other one resumes from the previous one

    @property
    def key(self) -> str:
        return f"chains/{self.setting.skip.percent}/{'-'.join(map(str, self.prompts))}"


@dataclass(frozen=True)
class DepthPoint:
    depth: int
    chains: int
    quality_ratio: Estimate  # chain / uncached
    drift: Estimate  # mean(chain - parent from noise), in units of the quality

    @property
    def drifts(self) -> bool:
        """Returns whether the chain is worse than a resume from a parent drawn from noise, with 95% confidence."""
        return self.drift.high < 0


def plan_chains(
    universe: Universe, setting: ChainSetting, count: int, length: int, rng: np.random.Generator
) -> list[Chain]:
    """Returns up to `count` chains of `length` resumes; fewer if there are not enough similar prompts."""
    chains = (_walk(universe, setting, length, rng) for _ in range(count))
    return list({chain.key: chain for chain in chains if chain is not None}.values())


def _walk(universe: Universe, setting: ChainSetting, length: int, rng: np.random.Generator) -> Chain | None:
    everything = np.arange(len(universe.concepts))
    for _ in range(TRIES):
        walk = [int(rng.integers(len(everything)))]
        while len(walk) <= length:
            similarity = universe.similar(walk[-1], everything)
            similarity[walk] = -1
            near = np.flatnonzero([setting.band.holds(s) for s in similarity])
            if not len(near):
                break
            walk.append(int(rng.choice(near)))
        else:
            return Chain(setting, tuple(walk))
    return None


def measure_chains(bench: Bench, chains: Sequence[Chain]) -> list[dict[str, Any]]:
    """Measures chains of one setting. Returns one item per chain: the qualities of chain, control and uncached run at
    depth 1, 2, ..."""
    fresh = bench.clean(i for chain in chains for i in chain.prompts)
    k = chains[0].setting.skip.k
    latents = [fresh[chain.prompts[0]] for chain in chains]
    items: list[dict[str, Any]] = [
        {"concept": bench.prompts[c.prompts[0]].concept, "chain": [], "control": [], "uncached": []} for c in chains
    ]
    for depth in range(1, len(chains[0].prompts)):
        now = [chain.prompts[depth] for chain in chains]
        before = [fresh[chain.prompts[depth - 1]] for chain in chains]
        texts, noises = [bench.encode(i) for i in now], [bench.noise(i) for i in now]
        parents = latents if depth == 1 else latents + before  # at depth 1 chain and control are the same run
        jobs = [
            bench.resumed(texts[at % len(now)], parent, noises[at % len(now)], k) for at, parent in enumerate(parents)
        ]
        done = bench.run(jobs)
        latents, controls = done[: len(now)], done[-len(now) :]
        scores = bench.score([*latents, *controls, *(fresh[i] for i in now)], now * 3)
        for at, item in enumerate(items):
            for name, start in (("chain", 0), ("control", len(now)), ("uncached", 2 * len(now))):
                item[name].append(round(scores[start + at], 6))
    return items


def read_depths(items: Sequence[dict[str, Any]]) -> list[DepthPoint]:
    """Returns the quality by depth of the chains of one setting. Pure."""
    if not items:
        return []
    concepts = [[item["concept"] for item in items]]
    points = []
    for at in range(len(items[0]["chain"])):
        chain, control, uncached = ([item[name][at] for item in items] for name in ("chain", "control", "uncached"))
        drift = [a - b for a, b in zip(chain, control, strict=True)]
        points.append(
            DepthPoint(at + 1, len(items), estimate(chain, concepts, per=uncached), estimate(drift, concepts))
        )
    return points
