"""YAML in, a checked DiffusionCache out; what is wrong is said field by field, with the remedy."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml
from pydantic import ValidationError

from diffcache_core.names import API_VERSION, KIND
from diffcache_core.spec import DiffusionCache


class ManifestError(ValueError):
    """The manifest cannot be used. The message names each wrong field and what to write instead."""


class _Loader(yaml.SafeLoader):
    """Without it the last of two equal keys would win unseen; the API server warns of them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        "in a mapping", node.start_mark, f"the key {key.value!r} stands there twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_manifest(text: str, origin: str = "manifest") -> DiffusionCache:
    """The one DiffusionCache in a YAML text. Raises ManifestError, naming `origin`, the field and the remedy."""
    try:
        documents = [d for d in yaml.load_all(text, _Loader) if d is not None]
    except yaml.YAMLError as error:
        raise ManifestError(f"{origin} is not YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:  # yaml lets the constructors' own errors through, for a date such as 2026-99-99
        raise ManifestError(f"{origin} is not YAML: {error}") from None
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise ManifestError(
            f"{origin} must hold one {KIND} ({API_VERSION}), holds {len(documents)} documents"
            if len(documents) != 1
            else f"{origin} must be a mapping with apiVersion, kind, metadata and spec"
        )
    try:
        return DiffusionCache.model_validate(documents[0])
    except ValidationError as error:
        raise ManifestError(f"{origin} is not a valid {KIND}:\n{explain_validation(error)}") from None


def explain_validation(error: ValidationError) -> str:
    """One line a wrong field: where it is, and what to do about it."""
    return "\n".join(f"  {_path(item['loc'])}: {_advice(item)}" for item in error.errors(include_url=False))


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path or "the document"


def _advice(error: object) -> str:
    """pydantic's sentence, without its type names, and with the value that was found."""
    assert isinstance(error, dict)
    if error["type"] == "extra_forbidden":
        return "unknown key: remove it (or is it misspelt, or from a newer version?)"
    if error["type"] == "missing":
        return "is required: add it"
    message = str(error["msg"]).removeprefix("Value error, ")
    value = error.get("input")
    if error["type"] in ("string_type", "int_type", "model_type", "list_type") or "Input should" in message:
        message = message.replace("Input should", "should")
        shown = repr(value)
        message += f", is {shown if len(shown) <= 60 else shown[:57] + '...'}"
        if error["type"] == "string_type" and isinstance(value, int | float):
            message += ": put it in quotes"
    return message
