"""Runs one comparison on the device, in pieces of at most one step, while no request is in the server.

If the server is never idle, a piece runs between two steps of requests after it has waited long enough for its share of
the device. So a busy server measures too, and its requests lose no more time than the budget allows.
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
    """The safety checker made a picture black, so it cannot be scored."""


@dataclass(frozen=True)
class Pair:
    """The quality of one picture that was resumed at a level, and of the same picture drawn without the cache."""

    level: ResumePoint
    cached: float  # a cosine
    uncached: float  # a cosine


@dataclass(frozen=True)
class Device:
    """Uses the device while it is idle."""

    engine: Engine
    idle: asyncio.Event  # set while there is no request
    read_patience: Callable[[GenerationRequest], float]  # seconds that a piece waits for idle time
    on_step: Callable[[], None]  # called after every step

    async def compare(self, plan: Plan, scorer: ClipScorer) -> list[Pair]:
        """Draws the missing pictures of the plan and scores all. Raises Flagged, or an error of the device."""
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
