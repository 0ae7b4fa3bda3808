"""Textual inversions and other added tokens: the stock pipeline's picture, and a key of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import AddedToken

from diffcache_core.generation import InvalidRequest
from diffcache_serving.engine.engine import Engine
from diffcache_serving.engine.loading import LoadedModel, load_model
from tests.serving.conftest import EMOJI
from tests.serving.folders import edit
from tests.serving.pipeline import diffusion_of, pipe_of

Draw = Callable[..., Awaitable[Any]]
Engines = Callable[..., Engine]


def inverted(stable_diffusion: Path, folder: Path, vectors: int) -> Path:
    """A folder that knows `<zork>`, which stands for so many vectors, with the hub's end token."""
    pipe = StableDiffusionPipeline.from_pretrained(stable_diffusion)
    embedding = torch.randn(vectors, 32, generator=torch.Generator().manual_seed(0))
    pipe.load_textual_inversion({"<zork>": embedding.squeeze(0)}, token="<zork>")  # not a secret
    pipe.save_pretrained(folder)
    edit(folder / "text_encoder" / "config.json", lambda config: config.update(eos_token_id=2))
    return folder


def load(folder: Path) -> LoadedModel:
    return load_model(EMOJI.model_copy(update={"source": f"file://{folder}"}))


@pytest.mark.parametrize("vectors", [1, 3])
async def test_a_textual_inversion_draws_the_stock_picture(
    vectors: int, stable_diffusion: Path, tmp_path: Path, engines: Engines, draw: Draw
) -> None:
    model = load(inverted(stable_diffusion, tmp_path / "inverted", vectors))
    texts = {"prompt": "a <zork> apple", "negative_prompt": "moon <zork>"}
    drawn = await draw(engines(model), steps=2, width=16, height=16, **texts)
    pipe = pipe_of(model)
    stock = pipe(
        **texts,
        num_inference_steps=2,
        guidance_scale=3.0,
        width=16,
        height=16,
        generator=torch.Generator().manual_seed(1),
    ).images[0]
    assert np.array_equal(drawn.pixels, np.asarray(stock))
    assert len(set(drawn.text.prompt_ids)) >= 2 + vectors


async def test_prompts_with_an_added_token_have_keys_of_their_own(
    stable_diffusion: Path, tmp_path: Path, engines: Engines, draw: Draw
) -> None:
    """With `eos_token_id: 2` the encoder pools at the added token: all that followed it counted for nothing."""
    model = load(inverted(stable_diffusion, tmp_path / "inverted", 1))
    engine = engines(model)
    keys = [
        (await draw(engine, steps=1, width=16, height=16, prompt=prompt)).text.key
        for prompt in ("<zork> apple", "<zork> truck on the moon")
    ]
    assert keys[0] @ keys[1] < 0.999


async def test_keys_without_added_tokens_stay(stable_diffusion: Path, tmp_path: Path) -> None:
    """They are in caches, and levels were measured with them."""
    model = load(stable_diffusion)
    tokens = pipe_of(model).tokenizer("red apple", padding="max_length", return_tensors="pt")
    pooled = pipe_of(model).text_encoder(tokens.input_ids).pooler_output
    assert torch.equal(diffusion_of(model)._encode("red apple").pooled, pooled)


async def test_a_token_that_the_text_encoder_lacks_is_the_callers_fault(
    stable_diffusion: Path, tmp_path: Path, engines: Engines, draw: Draw
) -> None:
    """On CUDA its look-up would end the process."""
    pipe = StableDiffusionPipeline.from_pretrained(stable_diffusion)
    pipe.tokenizer.add_tokens([AddedToken("<zork>")])
    pipe.save_pretrained(tmp_path / "more")
    engine = engines(load(tmp_path / "more"))
    with pytest.raises(InvalidRequest, match="prompt: has a word that the tokenizer knows and the text encoder"):
        await draw(engine, steps=1, width=16, height=16, prompt="<zork> apple")
    await draw(engine, steps=1, width=16, height=16, prompt="apple")
