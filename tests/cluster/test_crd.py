"""The CRD on a real API server: the same rows as the manifest's parser, and the changes that only a server sees."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from diffcache_core.resource.crd import custom_resource_definition
from diffcache_core.resource.spec import DiffusionCacheSpec
from tests.cluster.kube import ROOT, Kube, cache
from tests.core.resource.manifests import BAD, BASE, GOOD, GOOD_CHANGES, REFUSED_CHANGES, Row, manifest

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def room(kube: Kube, operator: Kube) -> Iterator[Kube]:
    kube("create", "namespace", "test-crd")
    yield kube.within("test-crd")
    kube("delete", "namespace", "test-crd")


@pytest.mark.parametrize("row", GOOD, ids=lambda row: row.id)
def test_good(room: Kube, row: Row) -> None:
    room("apply", "--dry-run=server", "-f", "-", text=yaml.safe_dump(manifest(row)))


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_examples(room: Kube, path: Path) -> None:
    room("apply", "--dry-run=server", "-f", str(path))


@pytest.mark.parametrize("row", BAD, ids=lambda row: row.id)
def test_bad(room: Kube, row: Row) -> None:
    told = room.refused("apply", "--dry-run=server", "-f", "-", text=yaml.safe_dump(manifest(row)))
    for word in row.words:
        assert word in told


@pytest.mark.parametrize("row", REFUSED_CHANGES, ids=lambda row: row.id)
def test_what_cannot_be_changed(room: Kube, row: Row) -> None:
    told = changed(room, row, refused=True)
    for word in row.words:
        assert word in told


@pytest.mark.parametrize("row", GOOD_CHANGES, ids=lambda row: row.id)
def test_what_can_be_changed(room: Kube, row: Row) -> None:
    changed(room, row, refused=False)


def changed(room: Kube, row: Row, *, refused: bool) -> str:
    first = cache("changing", **((row.before or {}) | {"serving": {"replicas": 0}}))
    room("delete", "diffusioncache", "changing", "--ignore-not-found")
    room.apply(first)
    spec = {"serving": {"replicas": 0}} | copy.deepcopy(row.spec)
    patch = ["patch", "diffusioncache", "changing", "--type=merge", "-p", json.dumps({"spec": spec})]
    return room.refused(*patch) if refused else room(*patch)


def test_an_unseen_resource_is_not_taken_for_a_current_one(room: Kube, no_operator: Kube) -> None:
    room.apply(cache("unseen", serving={"replicas": 0}))
    status = room.get("diffusioncache", "unseen")["status"]
    assert status["observedGeneration"] == -1


def test_columns_names_and_scale(room: Kube, operator: Kube) -> None:
    room.apply(cache("column", serving={"replicas": 0}))
    room.wait_reason("column", "ScaledToZero")
    head, row = room("get", "dcache", "column").splitlines()
    assert head.split() == ["NAME", "READY", "REASON", "SSR", "REPLICAS", "TUNED", "AGE"]
    assert row.split()[:3] == ["column", "True", "ScaledToZero"]
    wide, row = room("get", "dcache", "column", "-o", "wide").splitlines()
    assert [name for name in ("MODEL", "IMAGE", "CAPACITY", "MESSAGE") if name not in wide.split()] == []
    for told in ("bundled://emoji", "64Mi", "no pod is wanted; the cache is kept"):
        assert told in row
    assert "column" in room("get", "all")
    told = room.refused("scale", "diffusioncache", "column", "--replicas=3")
    assert "serving.replicas above 1 needs a cache that replicas can share" in told
    assert room.get("diffusioncache", "column")["spec"]["serving"]["replicas"] == 0


@pytest.mark.parametrize("path", [[], ["spec", "model", "scheduler"], ["spec", "serving", "pod", "securityContext"]])
def test_kubectl_explain_shows_the_description_of_a_field(room: Kube, path: list[str]) -> None:
    (version,) = custom_resource_definition()["spec"]["versions"]
    field = version["schema"]["openAPIV3Schema"]
    for name in path:
        field = field["properties"][name]
    shown = room("explain", ".".join(["diffusioncache", *path]))
    assert " ".join(field["description"].split()) in " ".join(shown.split())


def test_defaults_are_the_models_own(room: Kube) -> None:
    room.apply(manifest(Row("defaults", {}, name="defaults")))
    stored = room.get("diffusioncache", "defaults")["spec"]
    assert stored == DiffusionCacheSpec.model_validate(BASE).model_dump(mode="json", by_alias=True, exclude_none=True)
