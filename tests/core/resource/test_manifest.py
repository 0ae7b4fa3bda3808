"""What `kubectl get -o yaml` prints, and files with several resources: the one DiffusionCache is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from diffcache_core.resource.manifest import ManifestError, parse_manifest
from diffcache_core.resource.spec import DiffusionCache

ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "examples" / "quickstart.yaml"
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"password": "hunter2"}}


def with_defaults(schema: dict[str, Any], value: Any) -> Any:
    """What an API server makes of a value: the schema's defaults are filled in."""
    if isinstance(value, dict):
        known = schema.get("properties", {})
        filled = {name: part["default"] for name, part in known.items() if "default" in part}
        return {name: with_defaults(known.get(name, {}), part) for name, part in (filled | value).items()}
    return value


def from_a_cluster(name: str = "emoji", **metadata: Any) -> dict[str, Any]:
    crd = yaml.safe_load((ROOT / "crds" / "diffusioncaches.diffcache.io.yaml").read_text())
    document = yaml.safe_load(QUICKSTART.read_text())
    document |= {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": "4f1c",
            "resourceVersion": "1893",
            "generation": 3,
            "creationTimestamp": "2026-11-29T18:00:00Z",
            "finalizers": ["diffcache.io/purge"],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}\n"},
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {"f:model": {".": {}}}}}],
        }
        | metadata,
        "status": {"observedGeneration": 3, "conditions": [{"type": "Ready", "status": "True"}]},
    }
    return dict(with_defaults(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], document))


def as_list(*items: Any, kind: str = "List") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"resourceVersion": ""}, "items": list(items)}


def parse(*documents: Any, name: str = "") -> DiffusionCache:
    return parse_manifest(yaml.safe_dump_all(documents), "cache.yaml", name)


@pytest.mark.parametrize(
    "documents",
    [
        [from_a_cluster()],
        [as_list(from_a_cluster())],
        [as_list(from_a_cluster(), kind="DiffusionCacheList")],
        [SECRET, from_a_cluster()],
        [from_a_cluster(), SECRET, SECRET],
        [as_list(SECRET, as_list()), as_list(from_a_cluster())],
        [as_list(SECRET, from_a_cluster(), SECRET), None],
    ],
)
def test_the_one_resource_is_found(documents: list[Any]) -> None:
    found, written = parse(*documents), parse_manifest(QUICKSTART.read_text())
    assert found.metadata.name == "emoji"
    assert found.spec == written.spec


def test_what_is_written_down_reads_back() -> None:
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        resource = parse_manifest(path.read_text())
        copy = parse_manifest(resource.model_dump_json(by_alias=True, exclude_unset=True))
        assert copy == resource
        assert copy.model_fields_set == resource.model_fields_set


def test_of_several_one_is_chosen_by_name() -> None:
    two = [from_a_cluster("one"), SECRET, from_a_cluster("two")]
    with pytest.raises(ManifestError, match=r"holds 2 DiffusionCaches \(default/one, default/two\): choose .* --name"):
        parse(*two)
    assert parse(as_list(*two), name="two").metadata.name == "two"
    assert parse(*two, name="default/one").metadata.name == "one"
    with pytest.raises(ManifestError, match="no DiffusionCache called three, only default/one, default/two"):
        parse(*two, name="three")


def test_of_one_name_in_two_namespaces_one_is_chosen() -> None:
    two = [from_a_cluster(), from_a_cluster(namespace="studio")]
    with pytest.raises(ManifestError, match="NAMESPACE/NAME"):
        parse(*two, name="emoji")
    assert parse(*two, name="studio/emoji").metadata.namespace == "studio"
    with pytest.raises(ManifestError, match="leave one in it"):
        parse(from_a_cluster(), from_a_cluster())


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ([SECRET, SECRET], "must hold a DiffusionCache.*it holds Secret"),
        ([as_list()], "it holds nothing"),
        ([as_list([], None, 3)], "it holds no mapping"),
        ([SECRET | {"kind": "\x1b[31m"}, SECRET], r"Secret, \\x1b\[31m|\\x1b\[31m, Secret"),
        ([SECRET, from_a_cluster() | {"apiVersion": "diffcache.io/v9"}], "apiVersion: should be"),
        ([from_a_cluster() | {"stauts": {}}], "stauts: unknown key"),
        ([SECRET, {"spec": {}}], "kind: is required"),
        ([as_list(from_a_cluster()), {"kind": "DiffusionCache", "metadata": 3}], "holds 2 DiffusionCaches"),
    ],
)
def test_what_cannot_be_found_is_said(documents: list[Any], words: str) -> None:
    with pytest.raises(ManifestError, match=words) as caught:
        parse(*documents)
    assert "hunter2" not in str(caught.value)


def test_a_message_stays_short_and_holds_no_password() -> None:
    document = from_a_cluster()
    document["spec"] |= {f"key{number}": "x" for number in range(500)}
    with pytest.raises(ManifestError, match="and 480 more"):
        parse(document)
    document = from_a_cluster()
    document["spec"]["model"]["source"] = "https://me:hunter2@host/"
    document["spec"]["\x1b[2J" + "y" * 100_000] = 1
    with pytest.raises(ManifestError, match="https://host") as caught:
        parse(document)
    assert len(str(caught.value)) < 2000
    assert "hunter2" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
