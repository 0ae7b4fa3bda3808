"""The contents of a model folder of this family. It does not import torch, because the process that downloads a model
does not load torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PIPELINE = "StableDiffusionPipeline"
NEEDED = ("tokenizer", "text_encoder", "unet", "vae", "scheduler")
OPTIONAL = ("safety_checker", "feature_extractor", "image_encoder")
"""The parts of such a pipeline; each has a folder of the same name. Other parts in a model_index.json are ignored."""


def parts_of(model_index: Mapping[str, Any]) -> list[str]:
    """Returns the parts that a model_index.json names and that we load. [null, null] means that a part is left out."""
    named = {name for name, value in model_index.items() if isinstance(value, list) and value and value[0] is not None}
    return [name for name in (*NEEDED, *OPTIONAL) if name in named]
