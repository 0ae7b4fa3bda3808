"""The way of one request, over a tiny Stable Diffusion with the real safety checker."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor

from diffcache_core.cache.budget import Budget
from diffcache_core.cache.policies import LCBFU
from diffcache_core.cache.resume import Level, Levels
from diffcache_core.cache.states import StateKind
from diffcache_core.choices import DType
from diffcache_core.generation import GenerationRequest, Result
from diffcache_core.serving_config import ModelConfig
from diffcache_serving.cache.cache import Cache
from diffcache_serving.cache.index import MemoryIndex
from diffcache_serving.cache.ledger_sqlite import SqliteLedger
from diffcache_serving.cache.store import StateStore
from diffcache_serving.engine.engine import Engine
from diffcache_serving.engine.loading import LoadedModel, load_model
from diffcache_serving.generate import Generator
from diffcache_serving.metrics import Metrics
from diffcache_serving.queueing import StepQueue
from diffcache_serving.values.identity import CacheIdentity
from tests.serving.pipeline import pipe_of


async def generator(
    model: LoadedModel,
    engine: Engine,
    levels: Levels,
    identity: CacheIdentity | None = None,
    kind: StateKind = StateKind.CLEAN,
) -> Generator:
    metrics = Metrics(model.name)
    identity = identity or CacheIdentity(model.name, model.fingerprint, model.embedder, "float32", "DDIM", shared=False)
    ledger = await SqliteLedger.open(None, LCBFU())
    budget = Budget(2**20, 100)
    cache = Cache(ledger, StateStore(None), MemoryIndex(), metrics, identity, levels, kind, budget)
    return Generator(StepQueue(1000), engine, cache, [metrics])


def metrics_of(generator: Generator) -> Metrics:
    return next(observer for observer in generator.observers if isinstance(observer, Metrics))


def with_safety_checker(folder: Path, target: Path) -> Path:
    """The same model with a checker for which everything is unsafe: each concept's threshold lies below any cosine."""
    towers = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision = {**towers, "image_size": 8, "patch_size": 4}
    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=towers, vision_config=vision, projection_dim=8))
    checker.concept_embeds_weights.data.fill_(-2.0)
    checker.special_care_embeds_weights.data.fill_(2.0)
    size = {"height": 8, "width": 8}
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    processor = CLIPImageProcessor(size={"shortest_edge": 8}, crop_size=size)
    pipe.register_modules(safety_checker=checker, feature_extractor=processor)
    pipe.register_to_config(requires_safety_checker=True)
    pipe.save_pretrained(target)
    return target


async def test_a_flagged_picture_is_black_told_and_not_kept(
    stable_diffusion: Path, tmp_path: Path, engines: Callable[..., Engine], request_: GenerationRequest
) -> None:
    folder = with_safety_checker(stable_diffusion, tmp_path / "safe")
    model = load_model(
        ModelConfig(
            source=f"file://{folder}",
            scheduler="DDIM",
            dtype=DType.FLOAT32,
            steps=2,
            guidance=None,
            width=None,
            height=None,
        )
    )
    assert isinstance(pipe_of(model).safety_checker, torch.nn.Module)
    made = await generator(model, engines(model), Levels())
    request = replace(request_, steps=2, width=16, height=16)
    first = await made.generate(request)
    assert first.flagged
    assert first.entry == ""
    assert not np.asarray(Image.open(io.BytesIO(first.image))).any()
    assert (await made.generate(request)).result is Result.MISS
    await made.cache.close()


async def test_seconds_and_places_add_up(
    model: LoadedModel, engines: Callable[..., Engine], request_: GenerationRequest
) -> None:
    made = await generator(model, engines(model), Levels((Level(50, 0.5),), 50))
    first = await made.generate(replace(request_, steps=4))
    second = await made.generate(replace(request_, steps=4, seed=2))
    assert (first.result, second.result, second.steps_skipped) == (Result.MISS, Result.APPROXIMATE, 2)
    assert second.parent == first.entry
    for generation in (first, second):
        assert sum(generation.seconds.values()) <= generation.total_seconds
    assert made.queue.pending_steps == 0
    assert metrics_of(made).value("diffcache_steps_run_total") == 6
    await made.cache.close()


async def test_a_run_that_nobody_waits_for_counts_until_the_device_is_done(
    model: LoadedModel, engines: Callable[..., Engine], request_: GenerationRequest
) -> None:
    made = await generator(model, engines(model), Levels())
    inside, proceed = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def stop_here(*_: object) -> None:
        loop.call_soon_threadsafe(inside.set)
        proceed.wait()

    hook = pipe_of(model).unet.register_forward_pre_hook(stop_here)
    try:
        running = asyncio.create_task(made.generate(replace(request_, steps=5)))
        await inside.wait()
        running.cancel()
        await asyncio.wait([running])
        assert (made.queue.pending_steps, made.queue.requests) == (1, 1)
    finally:
        hook.remove()
        proceed.set()
    await made.queue.idle.wait()
    assert made.queue.pending_steps == 0
    await made.cache.close()


@pytest.mark.parametrize("seed", [0, 7, 2**31, 2**32 - 1])
def test_a_seed_of_32_bits_draws_what_torch_draws(seed: int, model: LoadedModel, request_: GenerationRequest) -> None:
    noise = model.diffusion.noise(replace(request_, seed=seed))
    assert torch.equal(noise, torch.randn(noise.shape, generator=torch.Generator("cpu").manual_seed(seed)))


def test_no_bit_of_a_seed_is_dropped(model: LoadedModel, request_: GenerationRequest) -> None:
    seeds = [7, 7 << 32, (1 << 32) + 7, (7 << 32) + 1, 2**63 - 1, *(1 << bit for bit in range(63))]
    noises = [model.diffusion.noise(replace(request_, seed=seed)) for seed in seeds]
    flat = torch.stack([noise.flatten() for noise in noises])
    alike = torch.corrcoef(flat) - torch.eye(len(seeds))
    assert alike.abs().max() < 0.3
    assert torch.equal(noises[2], model.diffusion.noise(replace(request_, seed=(1 << 32) + 7)))
    assert abs(float(flat.std()) - 1) < 0.02


LONG = "apple " * 100


@pytest.mark.parametrize(
    ("prompt", "negative", "guidance", "dropped"),
    [
        ("red apple", "", 3.0, (False, False)),
        (LONG, "", 3.0, (True, False)),
        ("red apple", LONG, 3.0, (False, True)),
        ("red apple", LONG, 1.0, (False, False)),  # without guidance nobody reads it
    ],
)
async def test_tokens_that_were_dropped_are_told(
    prompt: str,
    negative: str,
    guidance: float,
    dropped: tuple[bool, bool],
    model: LoadedModel,
    engines: Callable[..., Engine],
    request_: GenerationRequest,
) -> None:
    made = await generator(model, engines(model), Levels())
    tokenizer = pipe_of(model).tokenizer
    lost = len(tokenizer(LONG, truncation=False, verbose=False).input_ids) - tokenizer.model_max_length
    request = replace(request_, prompt=prompt, negative_prompt=negative, guidance=guidance, steps=1)
    for _ in range(2):  # the second time the negative prompt's encoding is at hand
        answer = await made.generate(request)
        assert (answer.dropped_tokens, answer.negative_dropped_tokens) == tuple(lost * one for one in dropped)
    await made.cache.close()


async def test_no_schedule_is_made_on_the_event_loop(
    models: Callable[[str], LoadedModel],
    engines: Callable[..., Engine],
    request_: GenerationRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Making one takes 1 to 2 ms, and on CUDA it copies to the device."""
    model, made_by = models("DDIM"), set()
    identity = model.identity(shared=False)
    original = DDIMScheduler.set_timesteps

    def set_timesteps(self: DDIMScheduler, *args: object, **kwargs: object) -> None:
        made_by.add(threading.current_thread().name)
        original(self, *args, **kwargs)

    monkeypatch.setattr(DDIMScheduler, "set_timesteps", set_timesteps)
    made = await generator(model, engines(model), Levels((Level(50, 0.5),)), identity)
    for seed in (1, 1, 2):
        await made.generate(replace(request_, seed=seed))
    await made.cache.close()
    assert made_by == {"device"}
