"""Each rule lets something through and holds something back; tests/cluster asks a real API server the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from diffcache_core.resource.crd import custom_resource_definition
from diffcache_core.resource.manifest import ManifestError, parse_manifest
from diffcache_core.resource.rules import CEL_RULES
from tests.core.resource.manifests import BAD, GOOD, GOOD_CHANGES, REFUSED_CHANGES, Row, manifest


@pytest.mark.parametrize("row", GOOD, ids=lambda row: row.id)
def test_good(row: Row) -> None:
    parse_manifest(yaml.safe_dump(manifest(row)))


@pytest.mark.parametrize("row", [*GOOD_CHANGES, *REFUSED_CHANGES], ids=lambda row: row.id)
def test_what_is_changed_was_good(row: Row) -> None:
    """The change itself only a server sees."""
    parse_manifest(yaml.safe_dump(manifest(Row(row.id, row.before or {}))))


@pytest.mark.parametrize("row", BAD, ids=lambda row: row.id)
def test_bad(row: Row) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(yaml.safe_dump(manifest(row)))
    for word in row.words:
        assert word in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_manifest_that_nobody_else_reads_may_hold_a_password() -> None:
    """That of `diffcache up`, which has no Secret to name."""
    external = {"type": "External", "external": {"address": "redis://me:hunter2@redis:6379/1"}}
    text = yaml.safe_dump(manifest(Row("private", {"cache": {"ledger": external}})))
    parse_manifest(text, private=True)
    with pytest.raises(ManifestError):
        parse_manifest(text)


def test_every_rule_of_the_crd_has_a_row_that_it_refuses() -> None:
    """By a part of its message, so that a new rule without a row fails here."""
    words = [word for row in [*BAD, *REFUSED_CHANGES] for word in row.words]
    for message in _messages(custom_resource_definition()):
        assert any(word in message for word in words), message


def _messages(schema: object) -> set[str]:
    if isinstance(schema, dict):
        own = {rule["message"] for rule in schema.get(CEL_RULES, [])}
        return own.union(*(_messages(value) for value in schema.values()))
    if isinstance(schema, list):
        return set().union(*(_messages(value) for value in schema))
    return set()


def _fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Path and description of every field at every depth."""
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}.{name}".lstrip("."), inner.get("description", "")
        yield from _fields(inner, f"{path}.{name}")
    for part in ("items", "additionalProperties"):
        if isinstance(schema.get(part), dict):
            yield from _fields(schema[part], f"{path}[]")


def test_kubectl_explain_has_a_sentence_for_every_field() -> None:
    (version,) = custom_resource_definition()["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    assert "at most 40 lower-case letters" in schema["description"]
    told = dict(_fields(schema))
    del told["metadata"]  # of it a CRD may say nothing
    assert len(told) > 200
    for path, text in told.items():
        sentence = re.sub(r"Change: \w+\.$", "", text).strip()
        assert re.fullmatch(r"[A-Za-z0-9].+\.", sentence, re.DOTALL), f"{path}: {text!r}"
