"""The promises of the engine: the stock picture, the uninterrupted run, and what a batch may change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import torch

from diffcache_core.cache.states import StateKind
from diffcache_core.choices import SCHEDULERS
from diffcache_serving.engine.engine import Engine
from diffcache_serving.engine.loading import LoadedModel
from diffcache_serving.engine.schedulers.schedule import build_scheduler
from diffcache_serving.values.found import Resume
from tests.serving.pipeline import pipe_of

Draw = Callable[..., Awaitable[Any]]
Models = Callable[[str], LoadedModel]
Engines = Callable[..., Engine]


def resume(tensors: Any, k: int, kind: StateKind, *, own_run: bool) -> Resume:
    return Resume(k, 1, "parent", 1.0, 0, kind, own_run, tensors, 0.0)


def stock(model: LoadedModel, scheduler: str, steps: int, **changes: Any) -> np.ndarray:
    pipe = pipe_of(model)
    own, pipe.scheduler = pipe.scheduler, build_scheduler(scheduler, pipe.scheduler.config)
    try:
        arguments = {"prompt": "red apple, noto style", "guidance_scale": 3.0, "width": 64, "height": 64} | changes
        picture = pipe(num_inference_steps=steps, generator=torch.Generator().manual_seed(1), **arguments).images[0]
    finally:
        pipe.scheduler = own
    return np.asarray(picture).astype(int)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
async def test_alone_it_is_the_stock_picture_and_its_own_states_resume_it_at_every_k(
    scheduler: str, models: Models, engines: Engines, draw: Draw
) -> None:
    model, steps = models(scheduler), 6
    engine = engines(model)
    whole = await draw(engine, steps=steps, keep=tuple(range(1, steps)))
    assert np.array_equal(whole.pixels, stock(model, scheduler, steps))
    states = {s.k: s for s in whole.states if s.kind is StateKind.TRAJECTORY}
    assert sorted(states) == list(range(1, steps))
    for k, state in states.items():
        resumed = await draw(engine, resume(state.tensors, k, state.kind, own_run=True), steps=steps)
        assert np.array_equal(resumed.pixels, whole.pixels), f"k = {k}"
        assert torch.equal(resumed.states[-1].tensors["latent"], whole.states[-1].tensors["latent"]), f"k = {k}"


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance": 1.0},
        {"guidance": 7.5, "negative_prompt": "green leaf"},
        {"width": 32, "height": 96},
        {"prompt": "x" * 300},
    ],
    ids=str,
)
async def test_the_stock_picture_under_other_parameters(
    changes: dict[str, Any], model: LoadedModel, engines: Engines, draw: Draw
) -> None:
    ours = await draw(engines(model), steps=2, **changes)
    theirs = {("guidance_scale" if name == "guidance" else name): value for name, value in changes.items()}
    assert np.array_equal(ours.pixels, stock(model, "DDIM", 2, **theirs))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
async def test_in_a_batch_at_different_steps_it_is_within_1e_5(
    scheduler: str, models: Models, engines: Engines, draw: Draw
) -> None:
    """Requests that join at different times, with their own N, guidance and negative prompt."""
    model = models(scheduler)
    engine = engines(model)
    requests = [
        {"seed": seed, "steps": steps, "guidance": guidance, "negative_prompt": "leaf" * (seed % 2)}
        for seed, steps, guidance in ((1, 6, 3.0), (2, 3, 1.0), (3, 5, 7.5), (4, 4, 3.0))
    ]
    alone = [await draw(engine, **request) for request in requests]
    together = await asyncio.gather(*(draw(engine, **request) for request in requests))
    for one, other in zip(alone, together, strict=True):
        a, b = one.states[-1].tensors["latent"], other.states[-1].tensors["latent"]
        assert ((a - b).abs().max() / a.abs().max()).item() <= 1e-5


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("kind", StateKind)
async def test_another_requests_state_gives_the_request_its_own_picture(
    scheduler: str, kind: StateKind, models: Models, engines: Engines, draw: Draw
) -> None:
    """Seeds stay different, and the last step may be the first one run."""
    engine = engines(models(scheduler))
    steps = 4
    parent = await draw(engine, steps=steps, keep=(1, 2, 3))
    for k in (1, 2, 3):
        state = next(s for s in parent.states if s.kind is kind and s.k in (0, k))
        found = resume(state.tensors, k, kind, own_run=False)
        one, other = [
            await draw(engine, found, steps=steps, seed=seed, prompt="red apple, flat style") for seed in (7, 8)
        ]
        assert np.isfinite(one.states[-1].tensors["latent"].numpy()).all()
        if k < 3 or kind is StateKind.CLEAN:  # the last step alone takes x_0 from the parent's x_k
            assert not np.array_equal(one.pixels, other.pixels), f"k = {k}"
        assert not np.array_equal(one.pixels, parent.pixels)


async def test_a_clean_state_fits_another_n_and_another_scheduler(models: Models, engines: Engines, draw: Draw) -> None:
    parent = await draw(engines(models("DDIM")), steps=6)
    found = resume(parent.states[-1].tensors, 3, StateKind.CLEAN, own_run=False)
    for scheduler in SCHEDULERS:
        child = await draw(engines(models(scheduler)), found, steps=5, seed=9)
        assert np.abs(child.pixels - parent.pixels).mean() < 40, "an apple again, not noise"
