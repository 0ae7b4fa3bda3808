"""Folders of every shape: each is served, or refused in one line that names the file and the remedy."""

from __future__ import annotations

import asyncio
import itertools
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from diffcache_serving.engine.engine import Engine
from diffcache_serving.engine.loading import LoadedModel, load_model
from diffcache_serving.engine.sources import BUNDLED
from diffcache_serving.values.errors import ModelError
from diffcache_serving.warm_up import warm_up
from tests.serving.conftest import EMOJI, Draw
from tests.serving.folders import edit

Engines = Callable[..., Engine]
CONFIGS = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/tokenizer_config.json",
    "unet/config.json",
    "vae/config.json",
)

VALUES: tuple[Any, ...] = (..., None, -1, 0, 3, 0.5, "x", [], [3, 5], {}, True)
"""What a field is set to in turn; at `...` it is left out."""


@pytest.fixture
def copy(stable_diffusion: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stable_diffusion, tmp_path / "tiny-sd"))


def load(folder: Path, scheduler: str = "DDIM") -> LoadedModel:
    changes = {"source": f"file://{folder}", "scheduler": scheduler, "steps": 2, "guidance": None}
    return load_model(EMOJI.model_copy(update=changes))


async def attempt(folder: Path, scheduler: str = "DDIM") -> str:
    """What a start says of the folder; nothing if it draws a picture."""
    try:
        model = await asyncio.to_thread(load, folder, scheduler)
        engine = Engine(model.diffusion, 1)
        try:
            await warm_up(engine, model)
        finally:
            await engine.stop()
    except ModelError as error:
        return str(error)
    return ""


async def refusal(folder: Path, scheduler: str = "DDIM") -> str:
    text = await attempt(folder, scheduler)
    assert text, "it was served"
    assert text.isprintable(), "one line"
    assert len(text) < 700
    return text


def unet(copy: Path, **fields: Any) -> None:
    config = json.loads((copy / "unet" / "config.json").read_text()) | fields
    UNet2DConditionModel.from_config(config).save_pretrained(copy / "unet")


# ---- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [9, 8])
async def test_a_unet_for_inpainting_or_editing(channels: int, copy: Path) -> None:
    unet(copy, in_channels=channels)
    text = await refusal(copy)
    assert f"takes {channels} channels and gives 4, the VAE's latents have 4: use a text-to-image model" in text
    assert "unet/config.json" in text


async def test_a_unet_of_another_text_encoder(copy: Path) -> None:
    unet(copy, cross_attention_dim=64)
    text = await refusal(copy)
    assert "made for a text encoder of width 64, that in text_encoder has 32: copy both from the same model" in text


@pytest.mark.parametrize("length", [None, 1000, 0, -3])
async def test_a_tokenizer_that_does_not_say_its_length(length: int | None, copy: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        del config["model_max_length"]
        config |= {} if length is None else {"model_max_length": length}

    edit(copy / "tokenizer" / "tokenizer_config.json", change)
    assert "model_max_length must be a number of tokens up to 77" in await refusal(copy)


@pytest.mark.parametrize("size", [None, 0, -8, [8], [8, None], "8", 8.5, True])
async def test_a_unet_that_does_not_say_its_size(size: object, copy: Path) -> None:
    edit(copy / "unet" / "config.json", lambda config: config.update(sample_size=size))
    assert "sample_size must be the side of the latent" in await refusal(copy)


@pytest.mark.parametrize("factor", [None, 0, -1, "0.18", 1e30, True])
async def test_a_vae_whose_latents_have_no_scale(factor: object, copy: Path) -> None:
    edit(copy / "vae" / "config.json", lambda config: config.update(scaling_factor=factor))
    assert "scaling_factor must be a number from 0.0001 to 10000" in await refusal(copy)


@pytest.mark.parametrize("size", [2048, 100_000])
async def test_a_unet_that_is_larger_than_any_request_may_be(size: int, copy: Path) -> None:
    edit(copy / "unet" / "config.json", lambda config: config.update(sample_size=size))
    assert "must be at most 2048" in await refusal(copy)


async def test_a_tokenizer_without_its_vocabulary(tmp_path: Path) -> None:
    """All prompts would be one prompt, and resume from each other."""
    bundled = BUNDLED / "emoji"
    folder = Path(shutil.copytree(bundled, tmp_path / "emoji"))
    (folder / "tokenizer" / "tokenizer.json").unlink()
    assert "different letters become the same tokens" in await refusal(folder)


async def test_a_projection_of_zeros(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUNDLED / "emoji", tmp_path / "emoji"))
    path = folder / "diffcache" / "projection.safetensors"
    save_file({"weight": torch.zeros_like(load_file(path)["weight"])}, path)
    assert "holds zeros only" in await refusal(folder)


async def test_a_scheduler_that_needs_an_absent_package(copy: Path) -> None:
    edit(copy / "scheduler" / "scheduler_config.json", lambda config: config.update(use_beta_sigmas=True))
    text = await refusal(copy, "Euler")
    assert "scipy" in text
    assert "correct that file, or choose another spec.model.scheduler" in text
    assert await attempt(copy, "DDIM") == "", "DDIM has no use for the field"


async def test_a_part_that_is_named_and_absent(copy: Path) -> None:
    checker = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    edit(copy / "model_index.json", lambda index: index.update(safety_checker=checker))
    text = await refusal(copy)
    assert "names a safety_checker and there is no folder" in text
    assert 'set "safety_checker": [null, null] in model_index.json to serve without it' in text


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("unet", ["my_module", "MyUNet"]),
        ("vae", ["diffusers", "NoSuchVAE"]),
        ("scheduler", ["os", "path"]),
        ("text_encoder", ["diffusers"]),
        ("tokenizer", None),
    ],
)
async def test_code_of_the_folders_own(part: str, named: object, copy: Path) -> None:
    edit(copy / "model_index.json", lambda index: index.update({part: named}))
    text = await refusal(copy)
    assert f"give a model whose {part} is a class of diffusers or transformers" in text or "is of a path" in text


async def test_weights_that_lack_what_the_config_asks_for(copy: Path) -> None:
    """The libraries would go on with random numbers, others at every start."""
    edit(copy / "text_encoder" / "config.json", lambda config: config.update(num_hidden_layers=3))
    assert "text_encoder lack 16 tensors that its config.json asks for" in await refusal(copy)


async def test_a_pickle_runs_no_code(copy: Path, tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    for part, plain in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        (copy / part / f"{plain}.safetensors").unlink()
        name = "pytorch_model" if part == "text_encoder" else plain
        (copy / part / f"{name}.bin").write_bytes(pickle.dumps({"weight": Touch()}))
        assert f"its {part} in " in await refusal(copy)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("damage", ["", "{", "[]", '"text"', "null", "[" * 100_000, "{}", "gone"])
async def test_a_config_that_is_damaged(name: str, damage: str, copy: Path) -> None:
    if damage == "gone":
        (copy / name).unlink()
    else:
        (copy / name).write_text(damage)
    text = await attempt(copy)
    assert not text or text.isprintable()


def _fields(folder: Path) -> Iterator[tuple[str, str]]:
    for name in CONFIGS:
        for key in json.loads((folder / name).read_text()):
            yield name, key


EVERY = 6
"""Of all pairs of a field and a value every sixth: each field meets one or two values, each value many fields. All of
them, with 1, take half an hour on two busy cores."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scheduler", ["DDIM", "Euler", "DPM++2M"])
async def test_every_field_of_every_config(scheduler: str, stable_diffusion: Path, tmp_path: Path) -> None:
    """Whatever stands in a field: a picture, or one line. Nothing else may come out."""
    names = [name for name in CONFIGS if scheduler == "DDIM" or name.startswith("scheduler/")]
    fields = [field for field in _fields(stable_diffusion) if field[0] in names]
    for (name, key), value in itertools.islice(itertools.product(fields, VALUES), 0, None, EVERY):

        def change(config: dict[str, Any], key: str = key, value: object = value) -> None:
            del config[key]
            config |= {} if value is ... else {key: value}

        copy = Path(shutil.copytree(stable_diffusion, tmp_path / "copy"))
        edit(copy / name, change)
        text = await attempt(copy, scheduler)
        assert not text or text.isprintable(), (name, key, value)
        shutil.rmtree(copy)


# ---- served ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [("unet", "vae", "text_encoder"), ("unet",)], ids=["all", "the U-Net alone"])
@pytest.mark.parametrize("variant", ["fp16", "bf16", "ema"])
async def test_weights_in_a_variant_only(
    variant: str, parts: tuple[str, ...], copy: Path, stable_diffusion: Path, engines: Engines, draw: Draw
) -> None:
    for part in parts:
        (weights,) = (copy / part).glob("*.safetensors")
        weights.rename(weights.with_suffix(f".{variant}.safetensors"))
    drawn = await draw(engines(load(copy)), steps=2, width=16, height=16)
    plain = await draw(engines(load(stable_diffusion)), steps=2, width=16, height=16)
    assert np.array_equal(drawn.pixels, plain.pixels)


async def test_plain_weights_come_before_a_variant(copy: Path, engines: Engines, draw: Draw) -> None:
    before = await draw(engines(load(copy)), steps=2, width=16, height=16)
    for weights in copy.glob("*/*.safetensors"):
        other = {name: torch.zeros_like(tensor) for name, tensor in load_file(weights).items()}
        save_file(other, weights.with_suffix(".fp16.safetensors"), {"format": "pt"})
    after = await draw(engines(load(copy)), steps=2, width=16, height=16)
    assert np.array_equal(before.pixels, after.pixels)


async def test_several_variants_none_of_them_known(copy: Path) -> None:
    (weights,) = (copy / "vae").glob("*.safetensors")
    for variant in ("ema", "non_ema"):
        shutil.copy(weights, weights.with_suffix(f".{variant}.safetensors"))
    weights.unlink()
    assert "its vae has its weights only in the variants ema, non_ema" in await refusal(copy)


async def test_pickled_and_sharded_weights(copy: Path, stable_diffusion: Path, engines: Engines, draw: Draw) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(stable_diffusion)
    shutil.rmtree(copy / "unet")
    pipe.unet.save_pretrained(copy / "unet", max_shard_size="100KB")
    shutil.rmtree(copy / "vae")
    pipe.vae.save_pretrained(copy / "vae", safe_serialization=False)
    (copy / "text_encoder" / "model.safetensors").unlink()
    torch.save(pipe.text_encoder.state_dict(), copy / "text_encoder" / "pytorch_model.bin")
    assert len(list((copy / "unet").glob("*.safetensors"))) > 1
    drawn = await draw(engines(load(copy)), steps=2, width=16, height=16)
    plain = await draw(engines(load(stable_diffusion)), steps=2, width=16, height=16)
    assert np.array_equal(drawn.pixels, plain.pixels)


async def test_a_vae_without_its_encoder(copy: Path, stable_diffusion: Path, engines: Engines, draw: Draw) -> None:
    (weights,) = (copy / "vae").glob("*.safetensors")
    decoder = {k: v for k, v in load_file(weights).items() if not k.startswith(("encoder.", "quant_conv."))}
    save_file(decoder, weights, {"format": "pt"})
    drawn = await draw(engines(load(copy)), steps=2, width=16, height=16)
    plain = await draw(engines(load(stable_diffusion)), steps=2, width=16, height=16)
    assert np.array_equal(drawn.pixels, plain.pixels)


async def test_a_folder_of_links(stable_diffusion: Path, tmp_path: Path, engines: Engines, draw: Draw) -> None:
    """As a hub's cache and people who keep parts once lay them."""
    folder = tmp_path / "linked"
    folder.mkdir()
    for part in stable_diffusion.iterdir():
        (folder / part.name).symlink_to(part)
    drawn = await draw(engines(load(folder)), steps=2, width=16, height=16)
    plain = await draw(engines(load(stable_diffusion)), steps=2, width=16, height=16)
    assert np.array_equal(drawn.pixels, plain.pixels)
