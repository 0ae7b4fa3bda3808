"""One comparison on the device, in pieces of a step at most, each while no request is in the server.

Where there always is one, a piece takes its turn between two steps when it has waited for its share of the device: so a
server that is never idle measures too, and its requests lose what the budget allows and no more.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from diffcache_core.generation import GenerationRequest
from diffcache_serving.engine.device_run import DeviceRun
from diffcache_serving.engine.engine import Engine
from diffcache_serving.engine.step import step
from diffcache_serving.quality.plan import Plan, ResumePoint
from diffcache_serving.scorer import ClipScorer
from diffcache_serving.values.found import Found, Miss
from diffcache_serving.values.text import TextEncoding

T = TypeVar("T")


class Flagged(Exception):
    """The safety checker blackened a picture, so there is nothing to score."""


@dataclass(frozen=True)
class Pair:
    """Quality of one picture resumed at a level and of the same one drawn without the cache; cosines."""

    level: ResumePoint
    cached: float
    uncached: float


@dataclass(frozen=True)
class Device:
    """The device in idle moments."""

    engine: Engine
    idle: asyncio.Event  # set while there is no request
    read_patience: Callable[[GenerationRequest], float]  # seconds that a piece waits for such a moment
    on_step: Callable[[], None]  # called after every step

    async def compare(self, plan: Plan, scorer: ClipScorer) -> list[Pair]:
        """Draws what the plan lacks and scores it. Raises Flagged, or whatever went wrong on the device."""
        model, request = self.engine.model, plan.request
        text = await self._piece(request, lambda: model.encode(request))
        uncached = plan.served if plan.hit is None else await self._draw(request, text, Miss())
        levels, pictures = [], [uncached]
        if plan.hit is not None:
            levels.append(plan.hit)
            pictures.append(plan.served)
        if plan.probe is not None:
            levels.append(plan.probe.level)
            pictures.append(await self._draw(request, text, plan.probe.resume))
        q_u, *q_c = [await self._score(scorer, picture, request) for picture in pictures]
        return [Pair(level, cached, q_u) for level, cached in zip(levels, q_c, strict=True)]

    async def _draw(self, request: GenerationRequest, text: TextEncoding, found: Found) -> Image.Image:
        run = await self._piece(request, lambda: DeviceRun.begin(self.engine.model, request, text, found))
        while not run.is_denoised:
            await self._piece(request, lambda: step(self.engine.model, [run]))
            self.on_step()
        image, is_flagged = await self._piece(request, run.finish)
        if is_flagged:
            raise Flagged
        assert isinstance(image, Image.Image)
        return image

    async def _score(self, scorer: ClipScorer, picture: Image.Image, request: GenerationRequest) -> float:
        pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None].float() / 255
        (score,) = await self._piece(request, lambda: scorer.score(pixels, [request.prompt], batch=1))
        if not math.isfinite(score):
            raise ArithmeticError(f"the scorer gave {score}")
        return score

    async def _piece(self, request: GenerationRequest, work: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(self.read_patience(request)):
                await self.idle.wait()
        except TimeoutError:
            return await self.engine.spare(work, between_steps=True)
        return await self.engine.spare(work)
