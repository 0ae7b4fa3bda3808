"""Parses YAML into a checked DiffusionCache. Errors name each wrong field and what to write."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from diffcache_core.documents import MAX_NUMBER_CHARACTERS, DocumentError, parse_yaml, read_document
from diffcache_core.foreign import printable, quoted
from diffcache_core.names import API_VERSION, KIND
from diffcache_core.resource.rules import PRIVATE
from diffcache_core.resource.spec import DiffusionCache


class ManifestError(ValueError):
    """The manifest cannot be used. The message names each wrong field and what to write instead."""


def read_manifest(path: Path, name: str = "", *, private: bool = False) -> DiffusionCache:
    """Returns the DiffusionCache in a file; see `parse_manifest`. Raises ManifestError."""
    try:
        text = read_document(path)
    except DocumentError as error:
        raise ManifestError(str(error)) from None
    return parse_manifest(text, str(path), name, private=private)


def parse_manifest(text: str, origin: str = "manifest", name: str = "", *, private: bool = False) -> DiffusionCache:
    """Returns the DiffusionCache in a YAML text.

    The text may contain other resources, the DiffusionCache may be an item of a List, and it may have fields that a
    server adds, as in the output of `kubectl get -o yaml`.

    Args:
        text: the YAML.
        origin: what messages call it.
        name: NAME or NAMESPACE/NAME of the DiffusionCache; only needed if there are several.

    Raises:
        ManifestError: names `origin`, the field and the remedy.
    """
    try:
        documents = parse_yaml(text, origin)
    except DocumentError as error:
        raise ManifestError(str(error)) from None
    origin = printable(origin)
    document = _choose(list(_flatten(documents)), origin, name)
    try:
        # `status` belongs to the operator, so it is not checked.
        known = _without_nulls({k: v for k, v in document.items() if k != "status"})
        return DiffusionCache.model_validate(known, context=PRIVATE if private else None)
    except ValidationError as error:
        raise ManifestError(f"{origin} is not a valid {KIND}:\n{explain_validation(error)}") from None


def _without_nulls(value: Any) -> Any:
    """Removes keys with empty values (`serving:`), so that their defaults hold, as on the API server."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


def _flatten(documents: Sequence[object]) -> Iterator[object]:
    """Yields the resources, including the items of Lists."""
    for document in documents:
        items = document.get("items") if isinstance(document, Mapping) else None
        if isinstance(items, Sequence) and not isinstance(items, str):
            yield from items
        else:
            yield document


def _choose(resources: Sequence[object], origin: str, name: str) -> Mapping[Any, Any]:
    """Returns the chosen resource, unchecked. Raises ManifestError."""
    # A resource without a kind, or one that stands alone, counts as ours with a mistake.
    ours = [r for r in resources if isinstance(r, Mapping) and (len(resources) == 1 or r.get("kind") in (None, KIND))]
    if not ours:
        kinds = sorted({str(r.get("kind")) if isinstance(r, Mapping) else "no mapping" for r in resources})
        found = quoted(", ".join(kinds)) if kinds else "nothing"
        raise ManifestError(
            f"{origin} must hold a {KIND}: a mapping with apiVersion ({API_VERSION}), kind, metadata and spec; "
            f"it holds {found}"
        )
    chosen = [resource for resource in ours if not name or name in _names_of(resource)]
    if len(chosen) == 1:
        return chosen[0]
    names = quoted(", ".join(_names_of(resource)[-1] for resource in ours))
    if not chosen:
        raise ManifestError(
            f"{origin} holds no {KIND} called {quoted(name)}, only {names}: give one of them with --name"
        )
    if name or len({_names_of(resource)[-1] for resource in ours}) < len(ours):
        raise ManifestError(
            f"{origin} holds {len(ours)} {KIND}s ({names}): leave one in it, or give NAMESPACE/NAME with --name"
        )
    raise ManifestError(f"{origin} holds {len(ours)} {KIND}s ({names}): choose one with --name")


def _names_of(resource: Mapping[Any, Any]) -> tuple[str, ...]:
    """Returns the names of a resource that `name` may use: NAME, and NAMESPACE/NAME if it has a namespace."""
    metadata = resource.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    name, namespace = str(metadata.get("name", "without a name")), metadata.get("namespace")
    return (name, f"{namespace}/{name}") if namespace else (name,)


MAX_FAULTS = 20
"""Lines of one message at most. With more, the first ones, which often cause the rest, would scroll out of the
terminal."""

MAX_FAULT_CHARACTERS = 600
"""Characters of one line at most. Fewer would cut our own advice; more would only quote the document."""


def explain_validation(error: ValidationError) -> str:
    """Returns one line for each wrong field: where it is, and what to do about it."""
    faults = error.errors(include_url=False)
    lines = [
        "  " + quoted(f"{_path(fault['loc'])}: {_advice(fault)}", MAX_FAULT_CHARACTERS) for fault in faults[:MAX_FAULTS]
    ]
    if len(faults) > MAX_FAULTS:
        lines.append(f"  and {len(faults) - MAX_FAULTS} more")
    return "\n".join(lines)


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path or "the document"


def _advice(error: object) -> str:
    """Returns pydantic's message without type names and with the found value."""
    assert isinstance(error, dict)
    value = error.get("input")
    if error["type"] == "extra_forbidden":
        return "unknown key: remove it (or is it misspelt, or from a newer version?)"
    if error["type"] == "missing":
        return "is required: add it"
    if error["type"] == "int_type" and isinstance(value, str) and len(value) > MAX_NUMBER_CHARACTERS:
        return f"should be a valid integer, has {len(value):,} characters: write a smaller one"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] in ("string_type", "int_type", "model_type", "list_type") or "Input should" in message:
        message = f"{message.replace('Input should', 'should')}{_found(value)}"
        if error["type"] == "string_type":
            message += _how_to_quote(value)
        if error["type"] == "int_type" and isinstance(value, str) and value.isdecimal():
            message += ": remove the quotes"
    return message


_NOT_FINITE = {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}


def _found(value: object) -> str:
    """Returns the value as YAML spells it."""
    if isinstance(value, bool):
        return f", is {str(value).lower()}"
    if isinstance(value, float) and not math.isfinite(value):
        return f", is {_NOT_FINITE[str(value)]}"
    shown = repr(value)
    return f", is {shown if len(shown) <= 60 else shown[:57] + '...'}"


def _how_to_quote(value: object) -> str:
    """Returns what to do about a value that should be a text; empty if quotes would not help."""
    if isinstance(value, float) and not math.isfinite(value):
        return ", which is no number: write one, in quotes"
    if isinstance(value, bool):
        return ": put it in quotes"
    return f': put it in quotes, as "{value}"' if isinstance(value, int | float) else ""
