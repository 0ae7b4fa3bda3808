"""A server's inner parts with comparisons beside them: real model, scorer, engine and cache."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from diffcache_core.cache.resume import Level, Levels
from diffcache_core.cache.states import StateKind
from diffcache_core.generation import GenerationRequest
from diffcache_core.serving_config import QualityConfig
from diffcache_serving.engine.engine import Engine
from diffcache_serving.engine.loading import BUNDLED, LoadedModel
from diffcache_serving.generate import Generation, Generator
from diffcache_serving.quality.comparisons import Comparisons
from diffcache_serving.queueing import StepQueue
from diffcache_serving.scorer import ClipScorer
from tests.serving.cache.box import Box

ALWAYS = QualityConfig(shadow_percent=1000, scorer="bundled://emoji-clip")
"""More than a manifest may ask for: whatever comes after the first answer is due."""

LEVELS = Levels((Level(13, 0.40), Level(25, 0.60), Level(50, 0.75), Level(63, 1.0)), reseed_skip_percent=63)

LEVELS_FROM_HALF = Levels((Level(25, 0.60), Level(50, 0.95)), reseed_skip_percent=63)


@dataclass
class Stage:
    box: Box
    engine: Engine
    queue: StepQueue
    shadows: Comparisons
    generator: Generator
    request: GenerationRequest

    async def generate(self, prompt: str, seed: int = 1, **changes: Any) -> Generation:
        request = replace(self.request, prompt=prompt, seed=seed, request_id=f"{prompt}-{seed}", **changes)
        return await self.generator.generate(request)

    def runs(self, outcome: str) -> int:
        return self.box.count("shadow_runs_total", outcome=outcome)

    @property
    def steps(self) -> int:
        return self.box.count("shadow_steps_total")

    def pairs(self) -> dict[tuple[str, str], float]:
        """How many, by skip percentage and bin of similarity."""
        return {(skip, where): v for (skip, where, _), v in self._samples("diffcache_quality_pairs_total").items()}

    def sums(self, skip: str, similarity: str) -> dict[str, float]:
        found = self._samples("diffcache_quality_sum_total")
        return {k[2]: v for k, v in found.items() if k[:2] == (skip, similarity)}

    def _samples(self, name: str) -> dict[tuple[str, str, str], float]:
        return {
            (sample.labels["skip"], sample.labels["similarity"], sample.labels.get("moment", "")): sample.value
            for family in self.box.metrics.registry.collect()
            for sample in family.samples
            if sample.name == name
        }


MakeStage = Callable[..., Awaitable[Stage]]


@pytest.fixture(scope="session")
def scorer(model: LoadedModel) -> ClipScorer:
    return ClipScorer(BUNDLED / "emoji-clip", model.diffusion.device)


@pytest.fixture
async def stages(model: LoadedModel, folder: Path, request_: GenerationRequest) -> AsyncIterator[MakeStage]:
    made: list[Stage] = []

    async def make(
        quality: QualityConfig = ALWAYS,
        levels: Levels = LEVELS,
        kind: StateKind = StateKind.CLEAN,
        own_pixels: int | None = None,
        **bounds: Any,
    ) -> Stage:
        queue = StepQueue(10_000, own_pixels=own_pixels)
        queue.seconds_per_step = 1e9  # no piece of a comparison waits so long for an idle moment
        engine = Engine(model.diffusion, 8)
        box = await Box(folder / str(len(made))).open(levels=levels, kind=kind)
        shadows = Comparisons(queue, engine, box.cache, box.metrics, **bounds)
        generator = Generator(queue, engine, box.cache, [box.metrics, shadows])
        made.append(Stage(box, engine, queue, shadows, generator, request_))
        await shadows.configure(quality)
        return made[-1]

    yield make
    for stage in made:
        await stage.shadows.close()
        await stage.engine.stop()
        await stage.box.close()
