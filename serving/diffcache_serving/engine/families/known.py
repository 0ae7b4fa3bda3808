"""Checks whether a folder holds a supported pipeline. Does not import torch."""

from __future__ import annotations

from pathlib import Path

from diffcache_core.documents import read_json
from diffcache_serving.engine.families.stable_diffusion import files as stable_diffusion
from diffcache_serving.engine.sources import MODEL_INDEX
from diffcache_serving.values.errors import ModelError

SUPPORTED_PIPELINES = (stable_diffusion.PIPELINE,)


def check_pipeline(source: str, folder: Path) -> None:
    """Raises ModelError unless the folder's model_index.json names a supported pipeline."""
    try:
        class_name = read_json(folder / MODEL_INDEX)["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"model {source}: {folder / MODEL_INDEX} is damaged ({error}): copy the model again") from None
    if class_name not in SUPPORTED_PIPELINES:
        raise ModelError(
            f"model {source} is a {class_name}; diffcache serves: {', '.join(SUPPORTED_PIPELINES)} "
            "(Stable Diffusion 1.x and 2.x)"
        )
