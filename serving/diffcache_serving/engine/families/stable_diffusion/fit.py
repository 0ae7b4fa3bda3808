"""Checks whether the parts of a pipeline fit together and are supported. Every error names the file and the correct
value."""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase
from typing import Any

from diffcache_core.foreign import first_line
from diffcache_serving.values.errors import ModelError

SCALES = (1e-4, 1e4)
"""Allowed range of the scaling factor of a VAE, with a wide margin. Beyond it float32 gives pictures of one colour."""


def check_fit(source: str, folder: Path, pipe: Any) -> None:
    """Raises ModelError for a problem that would make every request fail or every picture wrong."""
    try:
        problem = _of_unet(pipe) or _of_vae(pipe) or _of_text(pipe)
    except Exception as error:  # parts of another type may lack the attributes that we read
        raise ModelError(
            f"model {source}: its parts are not those of Stable Diffusion 1.x or 2.x ({first_line(error)}): "
            "copy the model again, or choose another"
        ) from error
    if problem:
        path, text = problem
        raise ModelError(f"model {source}: {folder / path}: {text}")


def own_size(source: str, folder: Path, pipe: Any) -> tuple[int, int]:
    """Returns (width, height) in pixels for which the model was made. Raises ModelError if its config does not say."""
    sample = pipe.unet.config.sample_size
    sides = [sample, sample] if isinstance(sample, int) else sample
    if not (isinstance(sides, list | tuple) and len(sides) == 2 and all(_is_positive(side) for side in sides)):
        raise ModelError(
            f"model {source}: {folder / 'unet' / 'config.json'}: sample_size must be the side of the latent, a whole "
            f"number above 0 (64 for 512 pixels), is {sample!r}"
        )
    height, width = sides
    return width * pipe.vae_scale_factor, height * pipe.vae_scale_factor


def _of_unet(pipe: Any) -> tuple[str, str] | None:
    config, path = pipe.unet.config, "unet/config.json"
    latent = pipe.vae.config.latent_channels
    if config.time_cond_proj_dim is not None:
        return path, (
            "takes its guidance as an embedding (a distilled LCM), which diffcache cannot serve: use the model it was "
            "distilled from"
        )
    if config.in_channels != latent or config.out_channels != latent:
        return path, (
            f"the U-Net takes {config.in_channels} channels and gives {config.out_channels}, the VAE's latents have "
            f"{latent}: use a text-to-image model (9 channels are for inpainting, 8 for editing)"
        )
    width = pipe.text_encoder.config.hidden_size
    if config.encoder_hid_dim_type is None and config.cross_attention_dim != width:
        return path, (
            f"the U-Net is made for a text encoder of width {config.cross_attention_dim}, that in text_encoder has "
            f"{width}: copy both from the same model"
        )
    return None


def _of_vae(pipe: Any) -> tuple[str, str] | None:
    factor = pipe.vae.config.scaling_factor
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not SCALES[0] <= factor <= SCALES[1]:
        return "vae/config.json", (
            f"scaling_factor must be a number from {SCALES[0]:g} to {SCALES[1]:g} (0.18215 for Stable Diffusion), is "
            f"{factor!r}: copy the file again"
        )
    return None


def _of_text(pipe: Any) -> tuple[str, str] | None:
    tokenizer, config = pipe.tokenizer, pipe.text_encoder.config
    path, longest = "tokenizer/tokenizer_config.json", config.max_position_embeddings
    if not 2 < tokenizer.model_max_length <= longest:
        return path, (
            f"model_max_length must be a number of tokens up to {longest}, which the text encoder holds: set it to "
            f"{longest}"
        )
    ids = tokenizer("a", padding="max_length", max_length=tokenizer.model_max_length, truncation=True).input_ids
    if tokenizer.eos_token_id is None or tokenizer.eos_token_id not in ids:
        return path, "the tokenizer ends no text with its eos_token, where keys are read: copy the tokenizer again"
    letters = {tuple(tokenizer(letter).input_ids) for letter in ascii_lowercase}
    if len(letters) < len(ascii_lowercase) // 2:
        return "tokenizer", (
            "different letters become the same tokens, so all prompts would be one: its vocabulary is missing or cut "
            "short, copy tokenizer.json, or vocab.json and merges.txt, again"
        )
    return None


def _is_positive(side: Any) -> bool:
    return isinstance(side, int) and not isinstance(side, bool) and side > 0
