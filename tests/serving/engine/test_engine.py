"""The step loop: who waits for whom, and what ends a run early."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from diffcache_core.generation import GenerationRequest
from diffcache_serving.engine.engine import DeviceOutOfMemory, Engine, EngineStopped
from diffcache_serving.engine.loading import LoadedModel
from diffcache_serving.values.found import Exact, Miss
from tests.serving.pipeline import pipe_of

Draw = Callable[..., Awaitable[Any]]
Engines = Callable[..., Engine]


async def test_requests_share_denoiser_calls(model: LoadedModel, engines: Engines, draw: Draw) -> None:
    sizes: list[int] = []
    engine = engines(model, 3, on_call=lambda seconds, size, pixels: sizes.append(size))
    await asyncio.gather(*(draw(engine, steps=4, seed=seed, width=32, height=32) for seed in range(6)))
    assert sum(sizes) == 6 * 4
    assert max(sizes) == 3


async def test_who_is_told_of_a_call_is_told_on_the_event_loop(
    model: LoadedModel, engines: Engines, draw: Draw
) -> None:
    """What listens counts for the queue, which is the loop's."""
    threads: list[int] = []
    await draw(engines(model, on_call=lambda seconds, size, pixels: threads.append(threading.get_ident())), steps=3)
    assert threads == [threading.get_ident()] * 3


async def test_other_shapes_take_turns(model: LoadedModel, engines: Engines, draw: Draw) -> None:
    """A small picture is not starved by the large ones that came first."""
    engine = engines(model)
    order: list[str] = []

    async def one(name: str, **changes: Any) -> None:
        await draw(engine, **changes)
        order.append(name)

    await asyncio.gather(
        one("large", steps=12), one("large", steps=12, seed=2), one("small", steps=3, width=32, height=32)
    )
    assert order[0] == "small"


async def test_newcomers_do_not_overtake_for_ever(model: LoadedModel, engines: Engines, draw: Draw) -> None:
    """One run a call, and two clients whose short requests follow each other at once: the long one still advances."""
    engine = engines(model, 1)
    long = asyncio.ensure_future(draw(engine, steps=6, width=32, height=32))
    others = 0

    async def client() -> None:
        nonlocal others
        while not long.done() and others < 60:
            others += 1
            await draw(engine, steps=1, width=32, height=32, seed=others)

    await asyncio.gather(client(), client())
    assert others < 60, "the long one starves"
    await long


async def test_the_event_loop_never_waits_for_the_device(
    model: LoadedModel, engines: Engines, draw: Draw, request_: GenerationRequest
) -> None:
    """While the device is stopped in the middle of a step, the loop turns on."""
    engine = engines(model)
    inside, proceed = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def stop_here(*_: Any) -> None:
        loop.call_soon_threadsafe(inside.set)
        proceed.wait()

    hook = pipe_of(model).unet.register_forward_pre_hook(stop_here)
    try:
        drawing = asyncio.ensure_future(draw(engine, steps=1))
        await inside.wait()
        assert not drawing.done()
    finally:
        hook.remove()
        proceed.set()
    await drawing


async def test_leaving_a_run_cancels_it_at_the_next_step(
    model: LoadedModel, engines: Engines, draw: Draw, request_: GenerationRequest
) -> None:
    calls: list[int] = []
    engine = engines(model, on_call=lambda seconds, size, pixels: calls.append(size))
    request = replace(request_, steps=1000, width=32, height=32)
    text, _ = await engine.encode(request)
    async with engine.run(request, text, Miss()) as run:
        async for step in run.progress():
            if step == 3:
                break
    before = len(calls)
    await draw(engine, steps=2)  # whatever comes next gets the device at once
    assert len(calls) <= before + 1 + 2


async def test_progress_tells_every_step(model: LoadedModel, engines: Engines, request_: GenerationRequest) -> None:
    engine = engines(model)
    request = replace(request_, steps=5)
    text, _ = await engine.encode(request)
    counted: list[None] = []
    async with engine.run(request, text, Miss(), on_step=lambda: counted.append(None)) as run:
        assert [step async for step in run.progress()] == [1, 2, 3, 4, 5]
        await run.image()
    assert len(counted) == 5


async def test_exact_only_decodes(model: LoadedModel, engines: Engines, draw: Draw) -> None:
    calls: list[int] = []
    engine = engines(model, on_call=lambda seconds, size, pixels: calls.append(size))
    first = await draw(engine, steps=3)
    ran = len(calls)
    again = await draw(engine, Exact(3, 0, "entry", first.states[-1].tensors, 0.0), steps=3)
    assert again.image.tobytes() == first.image.tobytes()
    assert len(calls) == ran


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
async def test_out_of_memory_fails_the_request_and_the_engine_lives(
    error: Exception, model: LoadedModel, engines: Engines, draw: Draw
) -> None:
    engine = engines(model)

    def fail(*_: Any) -> None:
        raise error

    hook = pipe_of(model).unet.register_forward_pre_hook(fail)
    with pytest.raises(DeviceOutOfMemory):
        await draw(engine)
    hook.remove()
    assert (await draw(engine, steps=1)).image.size == (64, 64)


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
async def test_an_error_belongs_to_its_request(part: str, model: LoadedModel, engines: Engines, draw: Draw) -> None:
    engine = engines(model)
    module = getattr(pipe_of(model), part)
    target = module.decoder if part == "vae" else module

    def fail(*_: Any) -> None:
        raise ArithmeticError("broken")

    hook = target.register_forward_pre_hook(fail)
    with pytest.raises(ArithmeticError):
        await draw(engine)
    hook.remove()
    assert (await draw(engine, steps=1)).image.size == (64, 64)


async def test_stop_gives_up_what_runs_and_what_waits(model: LoadedModel, request_: GenerationRequest) -> None:
    engine = Engine(model.diffusion, 1)
    request = replace(request_, steps=1000)
    text, _ = await engine.encode(request)

    async def run() -> None:
        async with engine.run(request, text, Miss()) as run:
            await run.image()

    running = [asyncio.ensure_future(run()) for _ in range(3)]
    async with engine.run(request, text, Miss()) as first:
        async for _ in first.progress():
            break
        await engine.stop()
        with pytest.raises(EngineStopped):
            await first.image()
    for task in running:
        with pytest.raises(EngineStopped):
            await task
    with pytest.raises(EngineStopped):
        await engine.encode(request)


# ---- spare work ------------------------------------------------------------------------------------------------------


async def test_spare_work_waits_for_every_request_in_the_loop(
    model: LoadedModel, engines: Engines, draw: Draw, request_: GenerationRequest
) -> None:
    """Steps of requests that are there come first."""
    order: list[str] = []
    engine = engines(model)
    request = replace(request_, steps=3, width=32, height=32)
    text, _ = await engine.encode(request)
    hook = pipe_of(model).unet.register_forward_pre_hook(lambda *_: order.append("step"))
    try:
        async with engine.run(request, text, Miss()) as run:
            spare = [asyncio.ensure_future(engine.spare(partial(order.append, n))) for n in ("first", "second")]
            await run.image()
        await asyncio.gather(*spare)
    finally:
        hook.remove()
    assert order == ["step"] * 3 + ["first", "second"]


async def test_spare_work_is_in_no_count_of_steps_and_its_result_comes_back(
    model: LoadedModel, engines: Engines
) -> None:
    calls: list[int] = []
    engine = engines(model, on_call=lambda seconds, size, pixels: calls.append(size))
    assert await engine.spare(lambda: threading.current_thread().name) == "device"
    assert calls == []


async def test_cancelled_spare_work_is_not_begun(model: LoadedModel, engines: Engines) -> None:
    engine = engines(model)
    proceed = threading.Event()
    done: list[str] = []
    blocking = asyncio.ensure_future(engine.spare(proceed.wait))
    waiting = asyncio.ensure_future(engine.spare(lambda: done.append("waiting")))
    await asyncio.sleep(0)  # both are sent
    waiting.cancel()
    proceed.set()
    await blocking
    await engine.spare(lambda: done.append("after"))
    assert done == ["after"]


@pytest.mark.parametrize(
    ("error", "raised"), [(torch.OutOfMemoryError("CUDA out of memory"), DeviceOutOfMemory), (KeyError("x"), KeyError)]
)
async def test_an_error_of_spare_work_goes_to_whoever_sent_it(
    error: Exception, raised: type[Exception], model: LoadedModel, engines: Engines, draw: Draw
) -> None:
    engine = engines(model)

    def fail() -> None:
        raise error

    with pytest.raises(raised):
        await engine.spare(fail)
    assert (await draw(engine, steps=1)).image.size == (64, 64)


async def test_stop_gives_spare_work_up(model: LoadedModel) -> None:
    engine = Engine(model.diffusion, 1)
    entered, proceed = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        proceed.wait()

    sent = [asyncio.ensure_future(engine.spare(work)) for work in (block, lambda: None)]
    await asyncio.to_thread(entered.wait)
    stopping = asyncio.ensure_future(engine.stop())
    await asyncio.sleep(0)  # it is told to stop, in the midst of the first
    proceed.set()
    await stopping
    await sent[0]
    with pytest.raises(EngineStopped):
        await sent[1]
