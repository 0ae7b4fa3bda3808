"""Which of a repository's files are fetched."""

from __future__ import annotations

import pytest

from diffcache_serving.engine.hub_files import choose_files, parts_of
from diffcache_serving.errors import ModelError


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


def test_weights_in_variants_only_are_refused() -> None:
    files = [name for name in FILES if not name.startswith("vae/") or "fp16" in name]
    with pytest.raises(ModelError, match=r"a/b: vae has its weights only in variants \(diffusion_pytorch_model.fp16"):
        choose_files("a/b", files, parts_of(INDEX))
