"""One NaN or infinity, wherever it shows: no picture, nothing kept, nothing resumed from, and it is counted."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import save_file

from diffcache_core.cache.resume import Level, Levels
from diffcache_core.cache.states import StateKind
from diffcache_core.generation import GenerationRequest, Result
from diffcache_serving.engine.engine import Engine
from diffcache_serving.engine.loading import LoadedModel, load_model
from diffcache_serving.generate import Generator
from diffcache_serving.values.errors import ModelError, NotFinite
from diffcache_serving.values.found import CapturedState, Miss
from diffcache_serving.warm_up import warm_up
from tests.serving.cache.box import CLEAN, TRAJECTORY
from tests.serving.conftest import EMOJI
from tests.serving.pipeline import diffusion_of, pipe_of
from tests.serving.test_generate import generator, metrics_of

LEVELS = Levels((Level(50, 0.5),), 50)
BAD = [float("nan"), float("inf"), float("-inf")]


@contextlib.contextmanager
def spoiled(module: torch.nn.Module, value: float) -> Iterator[None]:
    """All that `module` gives holds one number that is none."""

    def spoil(module: Any, inputs: Any, output: Any) -> None:
        first = output if isinstance(output, torch.Tensor) else output[0]
        first.view(-1)[0] = value

    hook = module.register_forward_hook(spoil)
    try:
        yield
    finally:
        hook.remove()


def part_of(model: LoadedModel, part: str) -> torch.nn.Module:
    pipe = pipe_of(model)
    return {"encoding": pipe.text_encoder, "latent": pipe.unet, "picture": pipe.vae.decoder}[part]


async def held(made: Generator) -> int:
    await made.cache.settle()
    return (await made.cache.totals()).entries


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("part", ["encoding", "latent", "picture"])
async def test_the_request_fails_and_poisons_nothing(
    part: str, value: float, model: LoadedModel, engines: Callable[..., Engine], request_: GenerationRequest
) -> None:
    made = await generator(model, engines(model), LEVELS)
    request = replace(request_, steps=2, negative_prompt=f"{part} {value}")
    with spoiled(part_of(model, part), value), pytest.raises(NotFinite, match=part):
        await made.generate(request)
    assert await held(made) == 0
    assert metrics_of(made).value("diffcache_not_finite_total", part=part) == 1
    for seed in (1, 2):  # the same request, and one that is like it
        again = await made.generate(replace(request, seed=seed))
        assert again.result in (Result.MISS, Result.APPROXIMATE)
        assert np.ptp(np.frombuffer(again.image, np.uint8)) > 0
    assert made.queue.pending_steps == 0
    await made.cache.close()


async def test_a_negative_prompt_that_came_out_spoiled_is_encoded_anew(
    model: LoadedModel, engines: Callable[..., Engine], request_: GenerationRequest
) -> None:
    made = await generator(model, engines(model), LEVELS)
    request = replace(request_, steps=1, negative_prompt="ugly, and spoiled once")
    encoder, calls = pipe_of(model).text_encoder, []

    def spoil_second(module: Any, inputs: Any, output: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            output[0].view(-1)[0] = float("nan")

    hook = encoder.register_forward_hook(spoil_second)
    try:
        with pytest.raises(NotFinite):
            await made.generate(request)
        assert (await made.generate(request)).result is Result.MISS
    finally:
        hook.remove()
    await made.cache.close()


@pytest.mark.parametrize("kind", [CLEAN, TRAJECTORY])  # which leave a state in the middle of a run, too
async def test_one_of_a_batch_takes_no_other_with_it(
    kind: StateKind, model: LoadedModel, engines: Callable[..., Engine], request_: GenerationRequest
) -> None:
    levels = Levels() if kind is CLEAN else Levels((Level(50, 1.0),))
    made = await generator(model, engines(model), levels, kind=kind)
    requests = [replace(request_, steps=6, seed=seed, guidance=1.0) for seed in range(4)]
    spoiled_calls: list[int] = []

    def spoil_once(module: Any, inputs: Any, output: Any) -> None:
        if len(output[0]) > 1 and not spoiled_calls:
            spoiled_calls.append(1)
            output[0][1, 0, 0, 0] = float("nan")

    hook = pipe_of(model).unet.register_forward_hook(spoil_once)
    try:
        results = await asyncio.gather(*(made.generate(r) for r in requests), return_exceptions=True)
    finally:
        hook.remove()
    assert sorted(type(r).__name__ for r in results) == ["Generation"] * 3 + ["NotFinite"]
    assert await held(made) == 3
    await made.cache.close()


async def test_what_resumes_from_a_state_and_comes_to_nothing_takes_the_state_with_it(
    model: LoadedModel, engines: Callable[..., Engine], request_: GenerationRequest
) -> None:
    """Numbers that are finite, and overflow in the first step."""
    made = await generator(model, engines(model), LEVELS)
    text, _ = await made.engine.encode(request_)
    wild = CapturedState(CLEAN, 0, {"latent": torch.full(model.diffusion.noise(request_).shape, 3e38)})
    assert made.cache.keep(made.cache.query(replace(request_, seed=9), text), Miss(), [wild])
    with pytest.raises(NotFinite):
        await made.generate(request_)
    while await held(made):
        await asyncio.sleep(0)
    assert (await made.generate(request_)).result is Result.MISS
    await made.cache.close()


async def test_a_key_that_is_not_finite_is_looked_up_and_kept_nowhere(
    model: LoadedModel, engines: Callable[..., Engine], request_: GenerationRequest
) -> None:
    made = await generator(model, engines(model), LEVELS)
    projection = diffusion_of(model).projection
    assert projection is not None
    diffusion_of(model).projection = torch.full_like(projection, float("nan"))
    try:
        for _ in range(2):
            assert (await made.generate(replace(request_, steps=1))).result is Result.MISS
    finally:
        diffusion_of(model).projection = projection
    assert await held(made) == 0
    assert metrics_of(made).value("diffcache_not_finite_total", part="key") == 2
    await made.cache.close()


# ---- at the start ----------------------------------------------------------------------------------------------------


async def test_a_model_that_draws_nothing_finite_is_refused(
    stable_diffusion: Path, tmp_path: Path, engines: Callable[..., Engine]
) -> None:
    """Zero terminal SNR: at the last timestep there is no signal, and an epsilon says nothing of the picture."""
    pipe = StableDiffusionPipeline.from_pretrained(stable_diffusion, safety_checker=None)
    pipe.scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        prediction_type="epsilon",
        clip_sample=False,
    )
    pipe.save_pretrained(tmp_path / "zero")
    config = EMOJI.model_copy(update={"source": f"file://{tmp_path / 'zero'}"})
    model = await asyncio.to_thread(load_model, config)
    with pytest.raises(ModelError, match=r"latent .*not finite.*zero terminal SNR"):
        await warm_up(engines(model), model)


async def test_a_model_whose_projection_is_not_finite_is_refused(model: LoadedModel, tmp_path: Path) -> None:
    folder = shutil.copytree(model.folder, tmp_path / "bad")
    projection = diffusion_of(model).projection
    assert projection is not None
    bad = projection.clone()
    bad[0, 0] = float("inf")
    save_file({"weight": bad}, folder / "diffcache" / "projection.safetensors")
    with pytest.raises(ModelError, match="not finite"):
        await asyncio.to_thread(load_model, EMOJI.model_copy(update={"source": f"file://{folder}"}))
