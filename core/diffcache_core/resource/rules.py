"""Rules of the resource's fields. Each is defined once, with the manifest's check beside the CRD's CEL rule.

A `Rule` in a field's annotation checks the value; one in a block's `rules` checks the block. A `Change` in a field's
annotation says what a change of its value costs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    model_validator,
)
from pydantic.alias_generators import to_camel, to_snake
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from diffcache_core.foreign import quoted

CEL_RULES = "x-kubernetes-validations"
LIST_TYPE = "x-kubernetes-list-type"
PRIVATE = {"private": True}
"""Validation context of a manifest that stays in its owner's files, such as that of `diffcache up`."""


class Change(StrEnum):
    """What a new value of a field means for running pods and for the cache."""

    HOT = "Hot"  # running pods apply it without a restart
    ROLL = "Roll"  # pods are replaced, the cache stays
    NEW_SPACE = "NewSpace"  # pods are replaced, entries that no longer fit are purged after their grace time
    GROW = "Grow"  # volumes grow under the running pods; a smaller size is refused
    IMMUTABLE = "Immutable"  # a change is refused


@dataclass(frozen=True)
class Rule:
    """A condition in CEL and in Python. `cel` may only use features of the chart's oldest `kubeVersion`."""

    cel: str
    message: str
    holds: Callable[[Any], bool]
    spares_private: bool = False  # the rule does not apply to a manifest that only its owner reads

    @classmethod
    def matches(cls, pattern: str, message: str) -> Rule:
        """Returns a rule that a string matches a pattern. Unlike `pattern` in a schema, its message says what to
        write."""
        escaped = pattern.replace("\\", "\\\\").replace("'", "\\'")
        compiled = re.compile(
            pattern.replace("$", r"\Z")
        )  # unlike Python's, RE2's `$` does not match before a last newline
        return cls(f"self.matches('{escaped}')", message, lambda value: compiled.search(value) is not None)

    def as_cel(self) -> dict[str, str]:
        return {"rule": self.cel, "message": self.message}

    def _check(self, value: Any, info: ValidationInfo) -> Any:
        is_bound = not (self.spares_private and info.context == PRIVATE)
        if is_bound and not self.holds(value):
            found = f"'{quoted(value)}'" if isinstance(value, str) else repr(value)
            raise ValueError(f"{self.message}, is {found}" if isinstance(value, str | int) else self.message)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler(schema)
        described[CEL_RULES] = [*described.get(CEL_RULES, []), self.as_cel()]
        return described


@dataclass(frozen=True)
class UniqueBy:
    """Marks a list as a map: no two of its items may have the same value of the field `key`."""

    key: str

    def _check(self, items: list[Any]) -> list[Any]:
        seen = [getattr(item, to_snake(self.key)) for item in items]
        twice = next((value for value in seen if seen.count(value) > 1), None)
        if twice is not None:
            raise ValueError(f"each {self.key} may appear once, {twice!r} is there {seen.count(twice)} times")
        return items

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {LIST_TYPE: "map", "x-kubernetes-list-map-keys": [self.key]}


class Block(BaseModel):
    """A mapping of the resource: unknown keys are refused by name, keys are camelCase."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, use_attribute_docstrings=True)
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _obeys_its_rules(self) -> Any:
        for rule in self.rules:
            if not rule.holds(self):
                raise ValueError(rule.message)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler.resolve_ref_schema(handler(schema))
        for field in cls.model_fields.values():
            if (change := change_of(field)) is not None:
                property_ = described["properties"][field.alias]
                property_["description"] = f"{property_.get('description', '')} Change: {change}.".strip()
        rules = [rule.as_cel() for rule in cls.rules] + _transitions(cls)
        if rules:
            described[CEL_RULES] = rules
        return described


def change_of(field: FieldInfo) -> Change | None:
    """Returns the Change in a field's own annotation; None if the fields of its block have their own."""
    marks = [*field.metadata]
    for kind in get_args(field.annotation):  # those of an optional field are inside its annotation
        marks += getattr(kind, "__metadata__", ())
    return next((mark for mark in marks if isinstance(mark, Change)), None)


def block_of(field: FieldInfo) -> type[Block] | None:
    """Returns the block of a field, optional or not; None if it has none."""
    for kind in (field.annotation, *get_args(field.annotation)):
        kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        if isinstance(kind, type) and issubclass(kind, Block):
            return kind
    return None


def fields_by_change(block: type[Block], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Change]]:
    """Yields every marked field below a block: its path in Python's names, and its Change. Raises TypeError for a field
    without a Change."""
    for name, field in block.model_fields.items():
        if (change := change_of(field)) is not None:
            yield (*path, name), change
        elif (inner := block_of(field)) is not None:
            yield from fields_by_change(inner, (*path, name))
        else:
            raise TypeError(f"{block.__name__}.{name} has no class of change")


def _transitions(block: type[Block]) -> list[dict[str, str]]:
    """Returns the CEL rules about changes of fields. They belong to the block, because a rule of an optional field is
    not checked when the field appears or disappears."""
    written = {Change.IMMUTABLE: _immutable, Change.GROW: _growing}
    return [written[change](field) for field in block.model_fields.values() if (change := change_of(field)) in written]


def _immutable(field: FieldInfo) -> dict[str, str]:
    name, same = field.alias, f"self.{field.alias} == oldSelf.{field.alias}"
    optional = f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || {same})"
    return {
        "rule": optional if field.default is None else same,
        "message": f"{name} cannot be changed: create another DiffusionCache beside this one, or delete this "
        "one, with its cache, and create it anew",
    }


def _growing(field: FieldInfo) -> dict[str, str]:
    """Returns the rule that a quantity with a default must not become smaller."""
    new, old = f"self.{field.alias}", f"oldSelf.{field.alias}"
    larger = f"quantity({new}).compareTo(quantity({old})) >= 0"
    return {
        "rule": f"!isQuantity({new}) || !isQuantity({old}) || {larger}",
        "message": f"{field.alias} cannot become smaller: no volume shrinks; write the former one, or a larger one",
    }
