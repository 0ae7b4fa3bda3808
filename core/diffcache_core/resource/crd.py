"""Makes the CustomResourceDefinition from the resource's models. Pure."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from diffcache_core.names import API_VERSION, GROUP, KIND, PLURAL, VERSION
from diffcache_core.resource.rules import CEL_RULES, LIST_TYPE
from diffcache_core.resource.spec import NAME_ADVICE, NAME_PATTERN, DiffusionCacheSpec
from diffcache_core.resource.status import DiffusionCacheStatus

JSON = dict[str, Any]

_COLUMNS = (
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 0),
    ("SSR", "string", ".status.cache.stepsSavedRatio", 0),
    ("Replicas", "integer", ".status.replicas", 0),
    ("Tuned", "string", ".status.tuning.history[0].reason", 0),
    ("Tuning", "string", '.status.conditions[?(@.type=="TuningActive")].reason', 1),
    ("Scaling", "string", '.status.conditions[?(@.type=="ScalingActive")].reason', 1),
    ("Model", "string", ".spec.model.source", 1),
    ("Image", "string", ".status.serving.image", 1),
    ("Capacity", "string", ".spec.cache.capacity", 1),
    ("Endpoint", "string", ".status.endpoint", 1),
    ("Message", "string", '.status.conditions[?(@.type=="Ready")].message', 1),
    ("Age", "date", ".metadata.creationTimestamp", 0),
)


def custom_resource_definition() -> JSON:
    """Returns the CRD `diffusioncaches.diffcache.io`, v1alpha1."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["dcache"],
                "categories": ["all", "diffcache"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _resource_schema()},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.serving.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind, "jsonPath": path, "priority": priority}
                        for name, kind, path, priority in _COLUMNS
                    ],
                }
            ],
        },
    }


def _resource_schema() -> JSON:
    pattern = NAME_PATTERN.replace("\\", "\\\\")
    return {
        "description": f"A diffusion model served with a cache of its earlier work. metadata.name {NAME_ADVICE}.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Always {API_VERSION}."},
            "kind": {"type": "string", "description": f"Always {KIND}."},
            "metadata": {"type": "object"},  # a CRD may not say more about it
            "spec": structural_schema(DiffusionCacheSpec),
            # With -1, a program that waits does not take a resource that no operator has seen for a current one.
            "status": structural_schema(DiffusionCacheStatus, defaults=False) | {"default": {"observedGeneration": -1}},
        },
        CEL_RULES: [{"rule": f"self.metadata.name.matches('{pattern}')", "message": f"metadata.name {NAME_ADVICE}"}],
    }


def structural_schema(model: type[BaseModel], *, defaults: bool = True) -> JSON:
    """Returns a model's schema in the form that a CRD allows: no references, no nulls, and a list type for every
    list."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.pop("$defs", {})
    return _structural(schema, definitions, defaults)


def _structural(schema: JSON, definitions: JSON, defaults: bool) -> JSON:
    schema = _resolved(schema, definitions)
    out = {key: value for key, value in schema.items() if key not in ("title", "default", "additionalProperties")}
    if "const" in out:
        out["enum"] = [out.pop("const")]
    if "properties" in schema:
        out["properties"] = {
            name: _structural(inner, definitions, defaults) for name, inner in schema["properties"].items()
        }
    elif isinstance(schema.get("additionalProperties"), dict):
        out["additionalProperties"] = _structural(schema["additionalProperties"], definitions, defaults)
    if "items" in schema:
        out["items"] = _structural(schema["items"], definitions, defaults)
        out.setdefault(LIST_TYPE, "atomic")
    if defaults and schema.get("default") is not None:
        out["default"] = _without_nulls(
            schema["default"]
        )  # whole blocks, because rules are checked before inner defaults are set
    return out


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value


def _resolved(schema: JSON, definitions: JSON) -> JSON:
    """Resolves a reference, and removes the null of an optional value."""
    if "anyOf" in schema:
        choices = [choice for choice in schema["anyOf"] if choice != {"type": "null"}]
        outer = {key: value for key, value in schema.items() if key != "anyOf"}
        if {choice.get("type") for choice in choices} == {"integer", "string"}:
            return outer | {"x-kubernetes-int-or-string": True}
        assert len(choices) == 1, f"no CRD can say: {schema}"
        return _resolved(choices[0], definitions) | outer
    if "$ref" in schema:
        outer = {key: value for key, value in schema.items() if key != "$ref"}
        inner = _resolved(definitions[schema["$ref"].rpartition("/")[2]], definitions)
        return inner | outer
    return schema
