"""Which of a repository's files are fetched."""

from __future__ import annotations

import pytest

from diffcache_serving.engine.families.stable_diffusion.files import parts_of
from diffcache_serving.engine.hub_files import choose_files
from diffcache_serving.values.errors import ModelError


def split(paths: str) -> list[str]:
    return paths.split()


# As in stable-diffusion-v1-5/stable-diffusion-v1-5, and some that other repositories have.
FILES = split("""
.gitattributes README.md v1-5-pruned.ckpt v1-5-pruned-emaonly.safetensors v1-inference.yaml model_index.json
feature_extractor/preprocessor_config.json scheduler/scheduler_config.json
safety_checker/config.json safety_checker/model.safetensors safety_checker/model.fp16.safetensors
safety_checker/pytorch_model.bin safety_checker/pytorch_model.fp16.bin
text_encoder/config.json text_encoder/pytorch_model.bin text_encoder/pytorch_model.fp16.bin
text_encoder/flax_model.msgpack text_encoder/model.onnx
tokenizer/merges.txt tokenizer/special_tokens_map.json tokenizer/tokenizer_config.json tokenizer/vocab.json
unet/config.json unet/diffusion_pytorch_model.bin unet/diffusion_pytorch_model.non_ema.safetensors
unet/diffusion_pytorch_model-00001-of-00002.safetensors unet/diffusion_pytorch_model-00002-of-00002.safetensors
unet/diffusion_pytorch_model.safetensors.index.json unet/diffusion_pytorch_model.fp16.safetensors
unet/diffusion_pytorch_model.safetensors.index.fp16.json unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors
vae/config.json vae/diffusion_pytorch_model.safetensors vae/diffusion_pytorch_model.fp16.safetensors
vae_decoder/model.onnx diffcache/levels.json diffcache/projection.safetensors
""")
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "requires_safety_checker": True,
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": [None, None],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def test_what_diffusers_needs_and_nothing_twice() -> None:
    assert sorted(choose_files("a/b", FILES, parts_of(INDEX))) == sorted(
        split("""
model_index.json feature_extractor/preprocessor_config.json scheduler/scheduler_config.json
safety_checker/config.json safety_checker/model.safetensors text_encoder/config.json text_encoder/pytorch_model.bin
tokenizer/merges.txt tokenizer/special_tokens_map.json tokenizer/tokenizer_config.json tokenizer/vocab.json
unet/config.json unet/diffusion_pytorch_model-00001-of-00002.safetensors
unet/diffusion_pytorch_model-00002-of-00002.safetensors unet/diffusion_pytorch_model.safetensors.index.json
vae/config.json vae/diffusion_pytorch_model.safetensors diffcache/levels.json diffcache/projection.safetensors
""")
    )


def test_parts_that_are_left_out_are_not_fetched() -> None:
    without = INDEX | {"safety_checker": [None, None]}
    assert not [name for name in choose_files("a/b", FILES, parts_of(without)) if name.startswith("safety_checker")]


def test_a_variant_is_fetched_where_there_are_no_plain_weights() -> None:
    files = [name for name in FILES if not name.startswith("vae/") or "fp16" in name or name == "vae/config.json"]
    chosen = choose_files("a/b", files, parts_of(INDEX))
    assert [name for name in chosen if name.startswith("vae/")] == split(
        "vae/config.json vae/diffusion_pytorch_model.fp16.safetensors"
    )
    assert "unet/diffusion_pytorch_model.fp16.safetensors" not in chosen


def test_a_variant_in_shards_is_fetched_whole() -> None:
    sharded = split("""
unet/config.json unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors
unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors unet/diffusion_pytorch_model.safetensors.index.fp16.json
""")
    assert sorted(choose_files("a/b", sharded, ["unet"])) == sorted(["model_index.json", *sharded])


def test_several_variants_none_of_them_known_are_refused() -> None:
    files = split("vae/diffusion_pytorch_model.ema.safetensors vae/diffusion_pytorch_model.non_ema.safetensors")
    with pytest.raises(ModelError, match=r"a/b: its vae has its weights only in the variants ema, non_ema"):
        choose_files("a/b", files, parts_of(INDEX))


def test_of_a_hubs_own_folder_for_us_two_files_are_fetched() -> None:
    files = split("diffcache/levels.json diffcache/run.py diffcache/projection.bin diffcache/a/levels.json")
    assert choose_files("a/b", files, []) == split("model_index.json diffcache/levels.json")


def test_parts_that_we_do_not_load_are_not_fetched() -> None:
    strange = {"..": ["diffusers", "X"], "diffcache": ["diffusers", "X"], "prior": ["my_code", "Prior"]}
    assert parts_of(INDEX | strange) == parts_of(INDEX)
