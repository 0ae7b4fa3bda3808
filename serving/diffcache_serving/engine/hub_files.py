"""Chooses the files of a model on a hub that diffusers needs. Pure.

Repositories often hold the same weights several times: as pickle, in half precision, for other frameworks, or as one
file for other programs. That is several times the size that is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from diffcache_serving.engine.sources import DIFFCACHE_FOLDER, MODEL_INDEX
from diffcache_serving.values.errors import ModelError

FORMATS = ("safetensors", "bin")  # the first that exists is used
VARIANTS = ("fp16", "bf16")  # the first that exists is used if there are no plain weights; variants are rounded
OWN_FILES = ("concepts.tsv", "levels.json", "projection.safetensors")  # files that we use from the folder `diffcache`
CONFIG_SUFFIXES = (".json", ".txt", ".model")  # configs and vocabularies

_WEIGHTS = re.compile(
    r"(?:model|pytorch_model|diffusion_pytorch_model)"
    r"(?P<variant>\.\w+)??(?:-\d+-of-\d+)?\.(?P<format>safetensors|bin)"
    r"(?P<index>\.index(?P<index_variant>\.\w+)?\.json)?"
)


def choose_files(source: str, paths: Iterable[str], parts: Iterable[str]) -> list[str]:
    """Returns the paths of the files to download for `parts`, chosen from `paths`.

    Raises ModelError if the weights of a part exist only in several unknown variants.
    """
    by_folder: dict[str, list[str]] = {}
    for path in map(PurePosixPath, paths):
        if len(path.parts) == 2:
            by_folder.setdefault(path.parts[0], []).append(path.name)
    chosen = [MODEL_INDEX]
    for part in parts:
        names = by_folder.get(part, [])
        configs = [name for name in names if name.endswith(CONFIG_SUFFIXES) and not _WEIGHTS.fullmatch(name)]
        wanted = choose_weights(f"{source}: its {part}", names)
        weights = [name for name in names if (match := _WEIGHTS.fullmatch(name)) and _kind(match) == wanted]
        chosen += [f"{part}/{name}" for name in configs + weights]
    return chosen + [f"{DIFFCACHE_FOLDER}/{name}" for name in OWN_FILES if name in by_folder.get(DIFFCACHE_FOLDER, [])]


def choose_weights(what: str, names: Iterable[str]) -> tuple[str | None, str]:
    """Returns variant (None: the plain weights) and format of the weights to load from the files of a part.

    Raises ModelError if the weights exist only in several unknown variants.
    """
    there = {_kind(match) for name in names if (match := _WEIGHTS.fullmatch(name))}
    variants = sorted({variant for variant, _ in there if variant})
    for variant in (None, *VARIANTS, *(variants if len(variants) == 1 else ())):
        for kind in FORMATS:
            if (variant, kind) in there:
                return variant, kind
    if variants:
        raise ModelError(
            f"model {what} has its weights only in the variants {', '.join(variants)}: leave the one to be served"
        )
    return None, FORMATS[0]


def _kind(match: re.Match[str]) -> tuple[str | None, str]:
    variant = match["variant"] or match["index_variant"]
    return variant.removeprefix(".") if variant else None, match["format"]
