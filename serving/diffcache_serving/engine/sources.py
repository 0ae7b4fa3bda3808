"""Finds the folder of a model on this machine from its source. Does not import torch."""

from __future__ import annotations

import os
from pathlib import Path

from diffcache_core.choices import SourceKind
from diffcache_core.names import MODEL_MOUNT
from diffcache_serving.values.errors import ModelError

BUNDLED = Path(__file__).parents[1] / "models"
DIFFCACHE_FOLDER = "diffcache"
"""Folder inside a model folder. It holds `projection.safetensors` (converts the pooled output to a key) and
`levels.json`."""

MODELS_FOLDER = "models"  # folder in the data folder for models from a hub
COMPLETE_MARKER = ".diffcache-complete"  # file in the folder of a model, written last; holds the commit
MODEL_INDEX = "model_index.json"


def model_folder(source: str, revision: str = "", data_dir: Path | None = None) -> Path:
    """Returns the folder of the model. `data_dir` holds models from a hub. Raises ModelError if there is none."""
    try:
        kind = SourceKind.of(source)
    except ValueError:
        raise ModelError(f"model {source}: begin it with bundled://, file:// or pvc://, or give a hub's id") from None
    rest = source.partition("://")[2]
    match kind:
        case SourceKind.BUNDLED:
            folder = BUNDLED / rest
        case SourceKind.FILE:
            folder = Path(rest).expanduser()
        case SourceKind.PVC:
            folder = Path(MODEL_MOUNT, *rest.split("/")[1:])
        case SourceKind.HUB:
            if data_dir is None:
                raise ModelError(f"model {source} is a hub's id: download it, and give file:// and its folder")
            folder = hub_folder(data_dir, source, revision)
            if not (folder / COMPLETE_MARKER).is_file():
                raise ModelError(
                    f"model {source} is not, or not completely, in {folder}: "
                    "run `python -m diffcache_serving.fetch` with the same --config first"
                )
    try:
        found = (folder / MODEL_INDEX).is_file()
    except PermissionError:
        raise ModelError(
            f"model {source}: user {os.getuid()} may not read {folder}: make it readable, chmod -R a+rX does"
        ) from None
    if not found:
        known = sorted(f"bundled://{p.parent.name}" for p in BUNDLED.glob(f"*/{MODEL_INDEX}"))
        raise ModelError(
            f"model {source}: {folder} holds no {MODEL_INDEX}; give a folder as diffusers saves it, "
            f"or one of {', '.join(known)}"
        )
    return folder


def scorer_folder(source: str) -> Path:
    """Returns the folder of a model that scores pictures. Raises ModelError if the type of source is not supported."""
    kind, _, rest = source.partition("://")
    if kind == "bundled":
        return BUNDLED / rest
    if kind == "file":
        return Path(rest).expanduser()
    if kind == "pvc":
        return Path(MODEL_MOUNT, *rest.split("/")[1:])
    raise ModelError(f"scorer {source}: begin it with bundled://, file:// or pvc://")


def hub_folder(data_dir: Path, source: str, revision: str) -> Path:
    """Returns the folder of a model from a hub. Each id and revision has its own folder, so that a change back needs no
    download."""
    return data_dir / MODELS_FOLDER / f"{source}@{revision or 'main'}".replace("/", "--")


def model_name(source: str) -> str:
    """Returns the last part of a source. Metrics, answers and entries use it as the name of the model."""
    return source.rpartition("://")[2].rstrip("/").rpartition("/")[2]
