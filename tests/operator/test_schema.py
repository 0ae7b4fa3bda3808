"""An old CRD under a new operator."""

from __future__ import annotations

import copy

from diffcache_core.resource.crd import structural_schema
from diffcache_core.resource.spec import DiffusionCacheSpec
from diffcache_core.resource.status import DiffusionCacheStatus
from diffcache_operator.metadata import JSON
from diffcache_operator.schema import missing_fields


def openapi(spec: JSON) -> JSON:
    kind = {"group": "diffcache.io", "version": "v1alpha1", "kind": "DiffusionCache"}
    status = structural_schema(DiffusionCacheStatus, defaults=False)
    schema = {"properties": {"spec": spec, "status": status}, "x-kubernetes-group-version-kind": [kind]}
    return {"components": {"schemas": {"other": {}, "cache": schema}}}


def test_an_old_crd_is_found_out() -> None:
    current = structural_schema(DiffusionCacheSpec)
    assert missing_fields(openapi(current)) == []
    old = copy.deepcopy(current)
    del old["properties"]["cache"]["properties"]["levels"]
    del old["properties"]["serving"]["properties"]["pod"]
    assert missing_fields(openapi(old)) == ["spec.serving.pod", "spec.cache.levels"]
    newer = copy.deepcopy(current)
    newer["properties"]["later"] = {"type": "object", "properties": {"mode": {"type": "string"}}}
    assert missing_fields(openapi(newer)) == []
