"""`diffcache render`, under both names."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml

Diffcache = Callable[..., CompletedProcess[str]]


def as_stdin(text: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(text.encode()))


MANIFEST = Path(__file__).parents[2] / "examples" / "quickstart.yaml"


def test_what_the_operator_would_apply(diffcache: Diffcache, kubectl_diffcache: Diffcache) -> None:
    done = diffcache("render", "-f", str(MANIFEST), "--serving-image", "mine:1", "--pull-secret", "login")
    assert done.returncode == 0, done.stderr
    head, _, rest = done.stdout.partition("---\n")
    assert "ownerReferences" in head
    objects = list(yaml.safe_load_all(rest))
    kinds = [one["kind"] for one in objects]
    assert {"ServiceAccount", "ConfigMap", "Service", "StatefulSet"} == set(kinds)
    pod = next(one for one in objects if one["kind"] == "StatefulSet")["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "mine:1"
    account = next(one for one in objects if one["kind"] == "ServiceAccount")
    assert account["imagePullSecrets"] == [{"name": "login"}]
    assert "ownerReferences" not in rest
    assert "serving.json: |" in rest  # readable
    as_list = kubectl_diffcache("render", "-f", str(MANIFEST), "-n", "studio", "-o", "json")
    assert {one["metadata"]["namespace"] for one in json.loads(as_list.stdout)["items"]} == {"studio"}


def test_what_stands_beside_the_pods_of_a_shared_cache(diffcache: Diffcache) -> None:
    shared = MANIFEST.with_name("shared.yaml")
    done = diffcache(
        "render", "-f", str(shared), "--redis-image", "valkey:8", "--milvus-image", "milvus:3", "-o", "json"
    )
    assert done.returncode == 0, done.stderr
    objects = {(one["kind"], one["metadata"]["name"]): one for one in json.loads(done.stdout)["items"]}
    images = {
        name: one["spec"]["template"]["spec"]["containers"][0]["image"]
        for (kind, name), one in objects.items()
        if kind == "StatefulSet"
    }
    assert (images["emoji-redis"], images["emoji-milvus"]) == ("valkey:8", "milvus:3")
    assert ("PodDisruptionBudget", "emoji") in objects


def test_the_manifest_says_more_than_the_options(diffcache: Diffcache, monkeypatch: pytest.MonkeyPatch) -> None:
    text = MANIFEST.read_text().replace("name: emoji", "name: emoji\n  namespace: one\n  uid: abc")
    monkeypatch.setattr("sys.stdin", as_stdin(text + "  serving: {image: pinned:1}\n"))
    done = diffcache("render", "-f", "-", "--serving-image", "mine:1")
    assert done.returncode == 0, done.stderr
    assert "image: pinned:1" in done.stdout
    assert "mine:1" not in done.stdout
    assert "abc" not in done.stdout
    monkeypatch.setattr("sys.stdin", as_stdin(text))
    done = diffcache("render", "-f", "-", "-n", "two")
    assert (done.returncode, "for the namespace one, not two" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not YAML"),
        ("", "must hold a DiffusionCache"),
        (MANIFEST.read_text().replace("steps: 8", "stepz: 8"), "spec.model.stepz: unknown key"),
        (MANIFEST.read_text().replace("64Mi", "lots"), "spec.cache.capacity"),
    ],
)
def test_what_cannot_be_rendered_is_said_as_up_says_it(
    text: str, words: str, diffcache: Diffcache, tmp_path: Path
) -> None:
    file = tmp_path / "cr.yaml"
    file.write_text(text)
    done = diffcache("render", "-f", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert str(file) in done.stderr


def test_no_file(diffcache: Diffcache) -> None:
    done = diffcache("render", "-f", "/nowhere.yaml")
    assert (done.returncode, done.stderr) == (2, "diffcache: /nowhere.yaml: No such file or directory\n")
