"""Memory that does not suffice: calls shrink, runs go on where they stand, only what does not fit alone fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from diffcache_serving.engine.engine import DeviceOutOfMemory, Engine
from diffcache_serving.engine.loading import LoadedModel
from diffcache_serving.values.finite import is_finite
from tests.serving.pipeline import pipe_of

Draw = Callable[..., Awaitable[Any]]
Engines = Callable[..., Engine]

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@contextlib.contextmanager
def room_for(module: torch.nn.Module, rows: int, error: BaseException, times: int = 10**9) -> Iterator[list[int]]:
    """Calls of more rows raise `error`, the first `times` times. Yields the rows of those that fitted."""
    fitted: list[int] = []
    left = times

    def check(_: Any, args: Any) -> None:
        nonlocal left
        if len(args[0]) > rows and left > 0:
            left -= 1
            raise error
        fitted.append(len(args[0]))

    hook = module.register_forward_pre_hook(check)
    try:
        yield fitted
    finally:
        hook.remove()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_eight_at_once_with_room_for_two_all_get_their_picture(
    error: BaseException, model: LoadedModel, engines: Engines, draw: Draw
) -> None:
    told: list[str] = []
    engine = engines(model, on_memory=told.append)
    alone = [await draw(engine, steps=3, seed=seed, width=32, height=32) for seed in range(8)]
    with room_for(pipe_of(model).unet, 4, error) as fitted:  # a guided run takes two rows
        together = await asyncio.gather(*(draw(engine, steps=3, seed=seed, width=32, height=32) for seed in range(8)))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.pixels, other.pixels, atol=1)
    assert sum(fitted) == 8 * 3 * 2, "a step was made twice, or not at all"
    assert 1 <= len(told) <= 3, "what does not fit is tried again and again"


async def test_what_does_not_fit_alone_fails_alone(model: LoadedModel, engines: Engines, draw: Draw) -> None:
    """A large picture has room for none of it; small ones beside it go on."""
    engine = engines(model)

    def check(_: Any, args: Any) -> None:
        if args[0].shape[-1] > 8 or len(args[0]) > 4:
            raise ERRORS[0]

    hook = pipe_of(model).unet.register_forward_pre_hook(check)
    try:
        small = [draw(engine, steps=4, seed=seed, width=32, height=32) for seed in range(4)]
        results = await asyncio.gather(draw(engine, steps=4), *small, return_exceptions=True)
    finally:
        hook.remove()
    assert Counter(type(result).__name__ for result in results) == {"DeviceOutOfMemory": 1, "Drawn": 4}


async def test_the_limit_of_one_size_is_not_that_of_another(model: LoadedModel, engines: Engines, draw: Draw) -> None:
    engine = engines(model)
    sizes: list[int] = []

    def check(_: Any, args: Any) -> None:
        if args[0].shape[-1] > 8 and len(args[0]) > 2:
            raise ERRORS[0]
        if args[0].shape[-1] <= 8:
            sizes.append(len(args[0]))

    hook = pipe_of(model).unet.register_forward_pre_hook(check)
    try:
        await asyncio.gather(*(draw(engine, steps=2, seed=seed) for seed in range(3)))
        await asyncio.gather(*(draw(engine, steps=6, seed=seed, width=32, height=32) for seed in range(4)))
    finally:
        hook.remove()
    assert max(sizes) == 8


@pytest.mark.parametrize("part", ["text_encoder", "unet", "decoder"])
async def test_a_call_alone_is_tried_again_once_all_is_given_back(
    part: str, model: LoadedModel, engines: Engines, draw: Draw
) -> None:
    told: list[str] = []
    engine = engines(model, on_memory=told.append)
    pipe = pipe_of(model)
    module = pipe.vae.decoder if part == "decoder" else getattr(pipe, part)
    before = await draw(engine, steps=2)
    calls = 0

    def once(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ERRORS[0]

    hook = module.register_forward_pre_hook(once)
    try:
        again = await draw(engine, steps=2)
    finally:
        hook.remove()
    assert again.image.tobytes() == before.image.tobytes()
    assert len(again.states) == len(before.states)
    assert told == [{"text_encoder": "encode", "unet": "step", "decoder": "decode"}[part]]


@pytest.mark.parametrize("part", ["text_encoder", "unet", "decoder"])
async def test_the_engine_lives_on(part: str, model: LoadedModel, engines: Engines, draw: Draw) -> None:
    engine = engines(model)
    pipe = pipe_of(model)
    module = pipe.vae.decoder if part == "decoder" else getattr(pipe, part)

    def fail(*_: Any) -> None:
        raise ERRORS[0]

    hook = module.register_forward_pre_hook(fail)
    with pytest.raises(DeviceOutOfMemory):
        await draw(engine, steps=1)
    hook.remove()
    assert (await draw(engine, steps=1)).image.size == (64, 64)


@pytest.mark.parametrize("scheduler", ["DDIM", "Euler", "DPM++2M"])
async def test_a_step_that_ran_out_half_way_is_taken_again_whole(
    scheduler: str, models: Callable[[str], LoadedModel], engines: Engines, draw: Draw
) -> None:
    """In the scheduler's own arithmetic, after it has moved its history on."""
    model = models(scheduler)
    engine = engines(model)
    before = await draw(engine, steps=5)
    run_schedule = type(model.diffusion.schedule(5, 0)._scheduler)
    real, calls = run_schedule.step, 0

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        result = real(self, *args, **kwargs)
        if calls == 3:
            raise ERRORS[0]
        return result

    run_schedule.step = step
    try:
        again = await draw(engine, steps=5)
    finally:
        run_schedule.step = real
    assert calls == 6
    assert is_finite(again.states[-1].tensors["latent"])
    assert torch.equal(again.states[-1].tensors["latent"], before.states[-1].tensors["latent"])
