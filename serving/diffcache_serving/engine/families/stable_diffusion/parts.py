"""Loads each part of a model folder separately, so that an error names the part. No code from the folder runs.

If weights that the config asks for are missing, the libraries continue with random numbers. Here that is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.pipelines import stable_diffusion

from diffcache_core.documents import DocumentError, read_json
from diffcache_core.foreign import first_line, quoted
from diffcache_serving.engine.families.stable_diffusion.files import NEEDED, OPTIONAL, parts_of
from diffcache_serving.engine.hub_files import choose_weights
from diffcache_serving.engine.schedulers.saved_config import BETA_SCHEDULERS, translate
from diffcache_serving.engine.schedulers.schedule import build_scheduler, served_class
from diffcache_serving.engine.sources import MODEL_INDEX
from diffcache_serving.values.errors import ModelError

WITH_WEIGHTS = ("text_encoder", "unet", "vae", "safety_checker", "image_encoder")
LIBRARIES = {"diffusers": diffusers, "transformers": transformers, "stable_diffusion": stable_diffusion}
"""Libraries that a model_index.json may name. Any other module would be code from the folder."""

SCHEDULER_CONFIG = "scheduler_config.json"


def load_pipeline(source: str, folder: Path, dtype: torch.dtype, scheduler: str) -> Any:
    """Returns a StableDiffusionPipeline on the CPU, with our own `scheduler`. Raises ModelError."""
    index = _read(source, folder / MODEL_INDEX)
    _check_folders(source, folder, index)
    parts: dict[str, Any] = {"scheduler": load_scheduler(source, folder, index, scheduler)}
    wanted = (*NEEDED, *(name for name in OPTIONAL if name in parts_of(index)))
    parts |= {name: _load_part(source, folder / name, index, dtype) for name in wanted if name not in parts}
    try:
        pipe = diffusers.StableDiffusionPipeline(
            **dict.fromkeys(OPTIONAL) | parts, requires_safety_checker=bool(index.get("requires_safety_checker", True))
        )
    except Exception as error:  # the library raises many types for a part that it cannot use
        raise ModelError(
            f"model {source}: {folder} is no StableDiffusionPipeline ({first_line(error)}): copy the model again"
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def load_scheduler(source: str, folder: Path, index: Mapping[str, Any], name: str) -> Any:
    """Returns the scheduler called `name`, with the noise schedule of the folder's scheduler. Raises ModelError."""
    path = folder / "scheduler" / SCHEDULER_CONFIG
    _, author = _class_of(source, index, "scheduler")
    if author not in BETA_SCHEDULERS:
        raise ModelError(
            f"model {source}: {path} is of a {quoted(author)}, whose noise schedule {name} cannot take over: "
            "save the model with a scheduler of Stable Diffusion, such as DDIMScheduler"
        )
    file = _read(source, path)
    try:
        return build_scheduler(name, translate(author, file, served_class(name)))
    except Exception as error:
        raise ModelError(
            f"model {source}: no {name} can be made from {path} ({first_line(error)}): correct that file, or choose "
            "another spec.model.scheduler"
        ) from error


def _read(source: str, path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except DocumentError as error:
        raise ModelError(f"model {source}: {error}: copy the model again") from None
    if not isinstance(value, dict):
        raise ModelError(f"model {source}: {path} is damaged, it holds no object: copy the model again")
    return value


def _check_folders(source: str, folder: Path, index: Mapping[str, Any]) -> None:
    gone = [name for name in NEEDED if not (folder / name).is_dir()]
    if gone:
        raise ModelError(f"model {source}: {folder} has no folder {', '.join(gone)}: copy the model again")
    for name in OPTIONAL:
        if name in parts_of(index) and not (folder / name).is_dir():
            raise ModelError(
                f"model {source}: {folder / MODEL_INDEX} names a {name} and there is no folder {folder / name}: copy "
                f'it too, or set "{name}": [null, null] in {MODEL_INDEX} to serve without it'
            )


def _class_of(source: str, index: Mapping[str, Any], name: str) -> tuple[Any, str]:
    """Returns the library and the name of a part's class. Raises ModelError if the class is code from the folder."""
    value = index.get(name)
    remedy = f"give a model whose {name} is a class of diffusers or transformers"
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value)):
        raise ModelError(f"model {source}: {MODEL_INDEX} does not say what its {name} is: {remedy}")
    library, class_name = value
    if library not in LIBRARIES or not hasattr(LIBRARIES[library], class_name):
        raise ModelError(f"model {source}: its {name} is a {quoted(library)}.{quoted(class_name)}: {remedy}")
    return LIBRARIES[library], class_name


def _load_part(source: str, folder: Path, index: Mapping[str, Any], dtype: torch.dtype) -> Any:
    library, class_name = _class_of(source, index, folder.name)
    options: dict[str, Any] = {"local_files_only": True}
    weighs = folder.name in WITH_WEIGHTS
    if weighs:
        variant, kind = choose_weights(f"{source}: its {folder.name}", [path.name for path in folder.iterdir()])
        options |= {"dtype": dtype, "use_safetensors": kind == "safetensors", "output_loading_info": True}
        options |= {} if variant is None else {"variant": variant}
    if library is not diffusers:
        options["trust_remote_code"] = False
    try:
        cls = getattr(library, class_name)
        if weighs and issubclass(cls, transformers.PreTrainedModel):  # the models of diffusers always do this
            options["weights_only"] = True
        part = cls.from_pretrained(folder, **options)
    except Exception as error:  # the libraries raise many types for a damaged file
        raise ModelError(
            f"model {source}: its {folder.name} in {folder} cannot be loaded, a file is missing or damaged "
            f"({first_line(error)}): copy the model again"
        ) from error
    if not weighs:
        return part
    part, info = part
    missing = sorted(name for name in info["missing_keys"] if not _is_unused(folder.name, name))
    if missing:
        raise ModelError(
            f"model {source}: the weights in {folder} lack {len(missing)} tensors that its config.json asks for "
            f"({missing[0]}): copy the model again"
        )
    return part.eval()


def _is_unused(part: str, name: str) -> bool:
    """Returns whether we never use this tensor: we only decode, so a VAE may lack its encoder."""
    return part == "vae" and name.startswith(("encoder.", "quant_conv."))
