"""Checks whether the CRD in the cluster has every field that this operator knows. Pure.

The API server drops unknown fields silently: with an old CRD a new feature would seem to do nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffcache_core.names import KIND, VERSION
from diffcache_core.resource.crd import structural_schema
from diffcache_core.resource.spec import DiffusionCacheSpec
from diffcache_core.resource.status import DiffusionCacheStatus

JSON = dict[str, Any]


def missing_fields(openapi: JSON) -> list[str]:
    """Returns paths such as `spec.cache.levels` that the served schema lacks. `openapi`: the OpenAPI document of our
    group."""
    served = next(
        schema
        for schema in openapi["components"]["schemas"].values()
        if any(
            kind["kind"] == KIND and kind["version"] == VERSION
            for kind in schema.get("x-kubernetes-group-version-kind", [])
        )
    )
    have = set(_paths(served))
    want = [
        *(f"spec.{path}" for path in _paths(structural_schema(DiffusionCacheSpec))),
        *(f"status.{path}" for path in _paths(structural_schema(DiffusionCacheStatus, defaults=False))),
    ]
    missing = [path for path in want if path not in have]
    return [path for path in missing if path.rpartition(".")[0] not in missing]  # name a missing block only once


def _paths(schema: JSON) -> Iterator[str]:
    for name, inner in schema.get("properties", {}).items():
        yield name
        items = inner.get("items", inner)
        yield from (f"{name}.{path}" for path in _paths(items if isinstance(items, dict) else inner))
