"""A device that is lost: whoever waits is told, nobody waits for ever, and the engine says that it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from diffcache_core.generation import GenerationRequest
from diffcache_serving.engine.device_errors import is_fatal, is_out_of_memory
from diffcache_serving.engine.engine import Engine
from diffcache_serving.engine.loading import LoadedModel
from diffcache_serving.values.errors import DeviceFailed
from diffcache_serving.values.found import Miss
from tests.serving.pipeline import pipe_of

Draw = Callable[..., Awaitable[Any]]
Engines = Callable[..., Engine]

CPU = torch.device("cpu")
LOST = torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCompile with `TORCH_USE_CUDA_DSA`")


class OutOfOurHands(BaseException):
    """What ends a thread though nothing catches it."""


def coded(code: int) -> torch.AcceleratorError:
    error = torch.AcceleratorError("CUDA error")
    setattr(error, "error_code", code)  # noqa: B010  # as CUDA's own have it; the stubs do not say so
    return error


@pytest.mark.parametrize("part", ["text_encoder", "unet", "decoder", "scorer"])
@pytest.mark.parametrize("error", [LOST, OutOfOurHands("gone")], ids=["sticky", "thread"])
async def test_all_who_wait_are_told(
    part: str, error: BaseException, model: LoadedModel, engines: Engines, draw: Draw, request_: GenerationRequest
) -> None:
    engine = engines(model)
    text, _ = await engine.encode(request_)
    pipe = pipe_of(model)
    module = {"decoder": pipe.vae.decoder, "scorer": pipe.unet}.get(part) or getattr(pipe, part)

    def fail(*_: Any) -> None:
        raise error

    hook = module.register_forward_pre_hook(fail)
    try:
        waiting = [draw(engine, steps=2, seed=seed) for seed in range(4)]
        if part == "scorer":
            waiting.append(engine.spare(lambda: fail()))
        results = await asyncio.gather(*waiting, return_exceptions=True)
    finally:
        hook.remove()
    assert {type(result) for result in results} == {DeviceFailed}
    with pytest.raises(DeviceFailed):
        await engine.ended
    for later in (engine.encode(request_), engine.spare(lambda: 1), draw(engine)):
        with pytest.raises(DeviceFailed):
            await later
    with pytest.raises(DeviceFailed):
        async with engine.run(replace(request_, steps=1), text, Miss()):
            pass


async def test_a_stop_is_no_failure(model: LoadedModel, engines: Engines) -> None:
    engine = engines(model)
    await engine.stop()
    await engine.ended


@pytest.mark.parametrize(
    ("error", "fatal"),
    [
        (LOST, True),
        (coded(700), True),
        (coded(719), True),
        (coded(2), False),
        (coded(9), False),
        (torch.AcceleratorError("CUDA error: out of memory"), False),
        (torch.OutOfMemoryError("CUDA out of memory"), False),
        (RuntimeError("shapes differ"), False),
        (ArithmeticError("broken"), False),
    ],
)
def test_which_errors_end_a_device(error: Exception, fatal: bool) -> None:
    assert is_fatal(error, CPU) is fatal


def test_which_errors_are_of_memory() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.AcceleratorError("CUDA error: out of memory"))
    assert not is_out_of_memory(LOST)
