"""Which files of a model on a hub diffusers needs to load it. Pure.

Repositories hold the same weights many times over: as pickle, in half precision, for other frameworks, as one file for
other programs: several times what is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from diffcache_serving.engine.sources import DIFFCACHE_FOLDER, MODEL_INDEX
from diffcache_serving.errors import ModelError

FORMATS = ("safetensors", "bin")  # the first that is there
CONFIG_SUFFIXES = (".json", ".txt", ".model")  # configs and vocabularies

_WEIGHTS = re.compile(
    r"(?:model|pytorch_model|diffusion_pytorch_model)"
    r"(?P<variant>\.\w+)??(?:-\d+-of-\d+)?\.(?P<format>safetensors|bin)"
    r"(?P<index>\.index(?P<index_variant>\.\w+)?\.json)?"
)


def parts_of(model_index: Mapping[str, Any]) -> list[str]:
    """The folders of the parts that a model_index.json names; [null, null] is a part that is left out."""
    return [name for name, value in model_index.items() if isinstance(value, list) and value and value[0] is not None]


def choose_files(source: str, paths: Iterable[str], parts: Iterable[str]) -> list[str]:
    """Raises ModelError for a part whose weights are there in variants only, such as fp16."""
    by_folder: dict[str, list[str]] = {}
    for path in map(PurePosixPath, paths):
        if len(path.parts) == 2:
            by_folder.setdefault(path.parts[0], []).append(path.name)
    chosen = [MODEL_INDEX]
    for part in parts:
        names = by_folder.get(part, [])
        configs = [name for name in names if name.endswith(CONFIG_SUFFIXES) and not _WEIGHTS.fullmatch(name)]
        chosen += [f"{part}/{name}" for name in configs + _choose_weights(f"{source}: {part}", names)]
    return chosen + [f"{DIFFCACHE_FOLDER}/{name}" for name in by_folder.get(DIFFCACHE_FOLDER, [])]


def _choose_weights(what: str, names: list[str]) -> list[str]:
    found = {name: match for name in names if (match := _WEIGHTS.fullmatch(name))}
    plain = {name: m for name, m in found.items() if not (m["variant"] or m["index_variant"])}
    if found and not plain:
        raise ModelError(f"model {what} has its weights only in variants ({', '.join(sorted(found))}): choose another")
    for kind in FORMATS:
        if weights := [name for name, match in plain.items() if match["format"] == kind]:
            return weights
    return []
