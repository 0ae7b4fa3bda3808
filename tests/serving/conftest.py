"""The real model, and the parts around it, small enough for one core."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffcache_core.choices import DType
from diffcache_core.generation import GenerationRequest
from diffcache_core.serving_config import ModelConfig
from diffcache_serving.engine.engine import Engine
from diffcache_serving.engine.loading import LoadedModel, load_model
from diffcache_serving.values.found import CapturedState, Found, Miss
from diffcache_serving.values.text import TextEncoding

EMOJI = ModelConfig(
    source="bundled://emoji", scheduler="DDIM", dtype=DType.AUTO, steps=8, guidance=3.0, width=None, height=None
)

REQUEST = GenerationRequest(
    prompt="red apple, noto style",
    seed=1,
    seed_is_explicit=True,
    steps=8,
    guidance=3.0,
    width=64,
    height=64,
    request_id="test",
)


@pytest.fixture
def request_() -> GenerationRequest:
    return REQUEST


@pytest.fixture(scope="session")
def models() -> Callable[[str], LoadedModel]:
    """The bundled model under a scheduler; loaded once each."""
    loaded: dict[str, LoadedModel] = {}

    def load(scheduler: str) -> LoadedModel:
        if scheduler not in loaded:
            loaded[scheduler] = load_model(EMOJI.model_copy(update={"scheduler": scheduler}))
        return loaded[scheduler]

    return load


@pytest.fixture(scope="session")
def model(models: Callable[[str], LoadedModel]) -> LoadedModel:
    return models("DDIM")


@pytest.fixture(scope="session")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion 1.x with the real classes, tiny and untrained: AutoencoderKL, epsilon prediction, PNDM."""
    torch.manual_seed(0)
    letters = [chr(c) for c in range(97, 123)]
    vocabulary = {
        t: i for i, t in enumerate([*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"])
    }
    text = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=len(vocabulary) - 2,
        eos_token_id=len(vocabulary) - 1,
    )
    pipe = StableDiffusionPipeline(
        tokenizer=CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77),
        text_encoder=CLIPTextModel(text),
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            layers_per_block=1,
            cross_attention_dim=32,
            attention_head_dim=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        vae=AutoencoderKL(
            block_out_channels=(32, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=8,
        ),
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1, beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-sd"
    pipe.save_pretrained(folder)
    return folder


@dataclass
class Drawn:
    image: Image.Image
    states: list[CapturedState]
    text: TextEncoding

    @property
    def pixels(self) -> np.ndarray:
        return np.asarray(self.image).astype(int)


Draw = Callable[..., Awaitable[Drawn]]


@pytest.fixture
async def engines() -> AsyncIterator[Callable[[LoadedModel], Engine]]:
    made: list[Engine] = []

    def make(model: LoadedModel, max_batch: int = 8, **options: Any) -> Engine:
        made.append(Engine(model.diffusion, max_batch, **options))
        return made[-1]

    yield make
    for engine in made:
        await engine.stop()


@pytest.fixture
def draw() -> Draw:
    async def draw(engine: Engine, found: Found | None = None, keep: tuple[int, ...] = (), **changes: Any) -> Drawn:
        request = replace(REQUEST, **changes)
        text, _ = await engine.encode(request)
        async with engine.run(request, text, found or Miss(), keep=keep) as run:
            image = await run.image()
        return Drawn(image, run.states, text)

    return draw


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"
