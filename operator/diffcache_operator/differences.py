"""Compares a wanted object with the existing one. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffcache_core.quantities import amount_of

JSON = dict[str, Any]


def includes(live: Any, wanted: Any) -> bool:
    """Returns whether `live` has everything that is wanted."""
    return next(differences(live, wanted), None) is None


def differences(live: Any, wanted: Any, path: str = "") -> Iterator[str]:
    """Yields the paths of wanted values that `live` lacks. Values that others added do not count.

    Lists of objects with names are compared by name, other lists item by item. Amounts of resources are compared by
    value, because the server writes 0.5 CPU as 500m.
    """
    if isinstance(wanted, dict) and isinstance(live, dict):
        yield from _in_object(live, wanted, path)
    elif isinstance(wanted, list) and isinstance(live, list):
        yield from _in_list(live, wanted, path)
    elif live != wanted:
        yield path


def _in_object(live: JSON, wanted: JSON, path: str) -> Iterator[str]:
    for key, value in wanted.items():
        inner = f"{path}.{key}" if path else key
        if key not in live and value in ({}, []):
            continue
        if key not in ("requests", "limits"):
            yield from differences(live.get(key), value, inner)
        elif not _same_amounts(live.get(key), value):
            yield inner


def _in_list(live: list[Any], wanted: list[Any], path: str) -> Iterator[str]:
    if all(isinstance(item, dict) and "name" in item for item in wanted):
        named = {item.get("name"): item for item in live if isinstance(item, dict)}
        for item in wanted:
            yield from differences(named.get(item["name"]), item, f"{path}[{item['name']}]")
    elif len(live) != len(wanted):
        yield path
    else:
        for i, (one, other) in enumerate(zip(live, wanted, strict=True)):
            yield from differences(one, other, f"{path}[{i}]")


def _same_amounts(live: Any, wanted: Any) -> bool:
    return isinstance(live, dict) and all(
        key in live and amount_of(str(live[key])) == amount_of(str(value)) for key, value in wanted.items()
    )
