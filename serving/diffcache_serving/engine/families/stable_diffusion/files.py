"""What a folder of this family holds. Without torch: a model is fetched by a process that has none loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PIPELINE = "StableDiffusionPipeline"
NEEDED = ("tokenizer", "text_encoder", "unet", "vae", "scheduler")
OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder")
"""Parts of such a pipeline, each in a folder of its name; whatever else a model_index.json names is not looked at."""


def parts_of(model_index: Mapping[str, Any]) -> list[str]:
    """The parts that a model_index.json names and we load; [null, null] is a part that is left out."""
    named = {name for name, value in model_index.items() if isinstance(value, list) and value and value[0] is not None}
    return [name for name in (*NEEDED, *OPTIONAL) if name in named]
