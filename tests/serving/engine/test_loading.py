"""Any Stable Diffusion folder is served; what cannot be is refused with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from diffcache_core.choices import DType
from diffcache_core.serving_config import ModelConfig
from diffcache_serving.engine.engine import Engine
from diffcache_serving.engine.loading import BUNDLED, LoadedModel, ModelError, fingerprint, load_levels, load_model
from diffcache_serving.values.defaults import ModelDefaults
from tests.serving.pipeline import pipe_of

Engines = Callable[..., Engine]
Draw = Callable[..., Awaitable[Any]]


def config(source: str, **changes: Any) -> ModelConfig:
    return ModelConfig(
        source=source, scheduler="Euler", dtype=DType.AUTO, steps=None, guidance=None, width=None, height=None
    ).model_copy(update=changes)


@pytest.fixture
def copy(stable_diffusion: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stable_diffusion, tmp_path / "tiny-sd"))


async def test_any_stable_diffusion_is_served_bit_for_bit(stable_diffusion: Path, engines: Engines, draw: Draw) -> None:
    model = load_model(config(f"file://{stable_diffusion}", scheduler="DDIM"))
    assert (model.name, model.levels_source, model.levels.table) == ("tiny-sd", "none", ())
    assert model.defaults == ModelDefaults(
        steps=50, guidance=7.5, width=16, height=16, size_multiple=8, max_pixels=1024
    )
    drawn = await draw(engines(model), steps=3, width=16, height=16)
    pipe = pipe_of(model)
    pipe.scheduler = model.diffusion.schedule(3, 0)._scheduler
    stock = pipe(
        "red apple, noto style",
        num_inference_steps=3,
        guidance_scale=3.0,
        width=16,
        height=16,
        generator=torch.Generator().manual_seed(1),
    ).images[0]
    assert np.array_equal(drawn.pixels, np.asarray(stock))
    assert drawn.text.key.shape == (32,)
    assert np.linalg.norm(drawn.text.key) == pytest.approx(1, abs=1e-6)


def test_the_bundled_model_has_key_and_levels(model: LoadedModel) -> None:
    assert model.levels_source == "model"
    assert model.levels.table
    assert model.diffusion.key_dim == 256


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(ModelError, match=r"/nowhere/at-all holds no model_index.json.*bundled://emoji"):
        load_model(config("file:///nowhere/at-all"))
    with pytest.raises(ModelError, match="bundled://emoji"):
        load_model(config("bundled://emojii"))


def test_another_pipeline_is_refused_with_the_list(copy: Path) -> None:
    index = copy / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "FluxPipeline"}))
    with pytest.raises(ModelError, match=r"is a FluxPipeline; diffcache serves: StableDiffusionPipeline"):
        load_model(config(f"file://{copy}"))


@pytest.mark.parametrize("damage", ["truncated", "missing", "unet gone", "index damaged", "index empty"])
def test_a_damaged_folder_is_refused_with_the_remedy(copy: Path, damage: str) -> None:
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    match damage:
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:1000])
        case "missing":
            weights.unlink()
        case "unet gone":
            shutil.rmtree(copy / "unet")
        case "index damaged":
            (copy / "model_index.json").write_text("{")
        case "index empty":
            (copy / "model_index.json").write_text("[]")
    with pytest.raises(ModelError, match="copy the model again"):
        load_model(config(f"file://{copy}"))


def test_a_distilled_model_is_refused(copy: Path) -> None:
    path = copy / "unet" / "config.json"
    pipe = StableDiffusionPipeline.from_pretrained(copy)
    unet = UNet2DConditionModel.from_config({**json.loads(path.read_text()), "time_cond_proj_dim": 32})
    pipe.register_modules(unet=unet)
    pipe.save_pretrained(copy)
    with pytest.raises(ModelError, match="distilled"):
        load_model(config(f"file://{copy}"))


def test_a_wrong_projection_is_refused(copy: Path) -> None:
    own = copy / "diffcache"
    own.mkdir()
    shutil.copy(BUNDLED / "emoji" / "diffcache" / "projection.safetensors", own)
    with pytest.raises(ModelError, match=r"must be a \(dim, 32\) matrix, is \(256, 256\)"):
        load_model(config(f"file://{copy}"))


@pytest.mark.parametrize(
    "levels",
    [
        "[]",
        "{",
        "null",
        "[" * 100_000,
        '{"a":' * 1000 + "1" + "}" * 1000,
        '{"levels": [{"skipPercent": 25}]}',
        '{"levels": [], "reseedSkipPercent": "x"}',
        '{"levels": 3, "reseedSkipPercent": 0}',
        '{"levels": ["x"], "reseedSkipPercent": 0}',
        '{"levels": [], "reseedSkipPercent": NaN}',
        '{"levels": [], "reseedSkipPercent": 1000}',
        '{"levels": [], "reseedSkipPercent": -1}',
        '{"levels": [], "reseedSkipPercent": 1e999}',
        *(
            f'{{"levels": [{{"skipPercent": {skip}, "similarity": {similarity}}}], "reseedSkipPercent": 13}}'
            for skip, similarity in (
                (1000, "0.9"),
                (100, "0.9"),
                (0, "0.9"),
                (-5, "0.9"),
                ("true", "0.9"),
                ("2.5", "0.9"),
                ("null", "0.9"),
                (25, "NaN"),
                (25, '"nan"'),
                (25, "Infinity"),
                (25, "-1"),
                (25, "7"),
                (25, "9" * 400),
                (25, "[]"),
                (25, '"\\u001b[2J"'),
            )
        ),
    ],
)
def test_damaged_levels_are_refused(levels: str, tmp_path: Path) -> None:
    """Else 1000 percent would end in INTERNAL at the first resume, and NaN would never be reached."""
    (tmp_path / "diffcache").mkdir()
    (tmp_path / "diffcache" / "levels.json").write_text(levels)
    with pytest.raises(ModelError, match="diffcache calibrate") as told:
        load_levels("file:///m", tmp_path)
    assert str(told.value).isprintable()


def test_a_default_size_that_the_model_cannot_make_is_refused(copy: Path) -> None:
    with pytest.raises(ModelError, match=r"spec.model.width: must be a multiple of 8"):
        load_model(config(f"file://{copy}", width=20))


def test_the_fingerprint_changes_with_a_weight_and_not_with_levels(copy: Path) -> None:
    before = fingerprint(copy)
    (copy / "diffcache").mkdir()
    (copy / "diffcache" / "levels.json").write_text("{}")
    assert fingerprint(copy) == before
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert fingerprint(copy) != before
