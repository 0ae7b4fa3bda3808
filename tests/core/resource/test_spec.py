"""Manifests: what passes, what is refused, and that the refusal names field and remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from diffcache_core.cache.states import StateKind
from diffcache_core.quantities import bytes_of
from diffcache_core.resource.manifest import ManifestError, parse_manifest
from diffcache_core.resource.spec import DiffusionCache
from diffcache_core.resource_to_config import LITE_MAX_ENTRIES, MILVUS_MAX_ENTRIES, Host, build_serving_config
from diffcache_core.serving_config import ListenConfig, ServingConfig
from tests.core.resource.manifests import BAD, Row
from tests.core.resource.manifests import manifest as manifest_of

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))


def manifest(**spec: Any) -> str:
    spec = {"model": {"source": "bundled://emoji"}} | spec
    return yaml.safe_dump(
        {"apiVersion": "diffcache.io/v1alpha1", "kind": "DiffusionCache", "metadata": {"name": "a"}, "spec": spec}
    )


def config_of(text: str) -> ServingConfig:
    return build_serving_config(parse_manifest(text), Host(Path("data"), ListenConfig()))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_valid(path: Path) -> None:
    assert isinstance(parse_manifest(path.read_text()), DiffusionCache)


def test_a_short_manifest_gets_the_defaults() -> None:
    config = config_of(manifest())
    assert (config.cache.capacity_bytes, config.cache.max_entries) == (64 * 2**20, LITE_MAX_ENTRIES)
    assert (config.cache.state, config.cache.levels, config.model.steps) == (StateKind.CLEAN, None, None)
    assert (config.batch_max_size, config.queue_max_steps, config.index.type) == (8, 4000, "Lite")


def test_what_is_left_empty_is_its_default() -> None:
    """As the API server takes it."""
    empty = {"serving": None, "cache": {"store": None, "levels": None}, "index": {"type": None}, "tuning": None}
    assert parse_manifest(manifest(**empty)) == parse_manifest(manifest())
    with pytest.raises(ManifestError, match=r"spec.model.source: is required"):
        parse_manifest(manifest(model={"source": None}))


def test_every_field_arrives() -> None:
    config = config_of(
        manifest(
            model={
                "source": "file:///models/sd",
                "scheduler": "DPM++2M",
                "dtype": "Float16",
                "steps": 5,
                "guidance": "7.5",
                "width": 512,
                "height": 768,
                "maxPixels": 500000,
            },
            serving={"batch": {"maxSize": 2}, "queue": {"maxSteps": 100}},
            cache={
                "capacity": "2Gi",
                "state": "Trajectory",
                "scope": "Shared",
                "levels": [{"skipPercent": 38, "similarity": "0.8"}, {"skipPercent": 25, "similarity": "0.65"}],
            },
            index={"type": "External", "external": {"uri": "http://milvus:19530"}},
        )
    )
    assert config.model.model_dump(mode="json") == {
        "source": "file:///models/sd",
        "revision": "",
        "ca_file": None,
        "scheduler": "DPM++2M",
        "dtype": "Float16",
        "steps": 5,
        "guidance": 7.5,
        "width": 512,
        "height": 768,
        "max_pixels": 500000,
    }
    assert (config.batch_max_size, config.queue_max_steps) == (2, 100)
    assert (config.cache.capacity_bytes, config.cache.max_entries) == (2 * 2**30, MILVUS_MAX_ENTRIES)
    assert (config.cache.state, config.cache.scope) == ("Trajectory", "Shared")
    levels = config.cache.level_table(reseed_skip_percent=20)
    assert levels is not None
    assert [(v.skip_percent, v.similarity) for v in levels.table] == [(25, 0.65), (38, 0.8)]
    assert levels.reseed_skip_percent == 20
    assert (config.index.type, config.index.uri) == ("External", "http://milvus:19530")


def test_a_config_survives_the_file_and_a_newer_writer() -> None:
    config = config_of(manifest())
    assert ServingConfig.model_validate_json(config.model_dump_json()) == config
    newer = config.model_dump(mode="json") | {"from_a_newer_operator": 1}
    assert ServingConfig.model_validate(newer) == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (manifest(model={"source": "bundled://emoji", "stepps": 8}), ["spec.model.stepps", "unknown key", "remove it"]),
        (manifest(modle={}), ["spec.modle", "unknown key"]),
        (manifest(tuning={"mood": "Auto"}), ["spec.tuning.mood", "unknown key"]),
        (manifest(cache={"ttlSeconds": 5}), ["spec.cache.ttlSeconds", "unknown key"]),
        (manifest(model={}), ["spec.model.source", "is required"]),
        (manifest(model={"source": "emoji"}), ["spec.model.source", "bundled://emoji"]),
        (manifest(model={"source": "bundled://emoji", "scheduler": "PNDM"}), ["spec.model.scheduler", "DDIM", "PNDM"]),
        (manifest(model={"source": "bundled://emoji", "steps": 0}), ["spec.model.steps", "is 0"]),
        (manifest(model={"source": "bundled://emoji", "steps": 10**6}), ["spec.model.steps", "1000"]),
        (manifest(model={"source": "bundled://emoji", "steps": "eight"}), ["spec.model.steps", "integer"]),
        (manifest(model={"source": "bundled://emoji", "guidance": 3.0}), ["spec.model.guidance", "put it in quotes"]),
        (manifest(model={"source": "bundled://emoji", "guidance": 7.5}), ['put it in quotes, as "7.5"']),
        (manifest(model={"source": "bundled://emoji", "steps": "8"}), ["spec.model.steps", "remove the quotes"]),
        (
            manifest(serving={"resources": {"requests": {"cpu": 0.5}}}),
            ["requests.cpu: must be an amount such as 2, 500m or 4Gi, and a decimal in quotes, is 0.5"],
        ),
        (manifest(model={"source": "bundled://emoji", "guidance": "hot"}), ["spec.model.guidance", "decimal"]),
        (manifest(model={"source": "bundled://emoji", "guidance": "NaN"}), ["spec.model.guidance", "from 0 to 50"]),
        (manifest(model={"source": "bundled://emoji", "width": 65}), ["spec.model.width", "multiple of 8", "is 65"]),
        (manifest(cache={"capacity": "64MB"}), ["spec.cache.capacity", "64Mi", "64MB"]),
        (manifest(cache={"capacity": "1Ki"}), ["spec.cache.capacity", "at least 1Mi"]),
        (manifest(cache={"capacity": -5}), ["spec.cache.capacity", "string"]),
        (manifest(cache={"state": "Dirty"}), ["spec.cache.state", "Clean", "Dirty"]),
        (manifest(cache={"levels": [{"skipPercent": 100, "similarity": "0.5"}]}), ["levels[0].skipPercent", "99"]),
        (
            manifest(cache={"levels": [{"skipPercent": 10, "similarity": "1.5"}]}),
            ["levels[0].similarity", "from 0 to 1"],
        ),
        (
            manifest(
                cache={"levels": [{"skipPercent": 10, "similarity": "0.9"}, {"skipPercent": 20, "similarity": "0.8"}]}
            ),
            ["spec.cache.levels", "must not fall"],
        ),
        (manifest(serving={"batch": {"maxSize": 0}}), ["spec.serving.batch.maxSize", "is 0"]),
        (manifest(serving={"queue": {"max_steps": 5}}), ["spec.serving.queue.max_steps", "unknown key"]),
        (manifest(index={"type": "External"}), ["spec.index", "external: {uri:"]),
        (manifest(index={"type": "Lite", "external": {"uri": "http://x:1"}}), ["spec.index", "exactly when"]),
        (manifest(index={"type": "External", "external": {"uri": "milvus"}}), ["spec.index.external.uri"]),
        (manifest().replace("v1alpha1", "v9"), ["apiVersion", "diffcache.io/v1alpha1"]),
        (manifest().replace("name: a", "name: Not_A_Name"), ["metadata.name"]),
        (manifest().replace("name: a", "name: " + "a" * 41), ["metadata.name"]),
        ("", ["it holds nothing"]),
        ("- 1\n- 2", ["must hold a DiffusionCache: a mapping"]),
        ("a: [", ["is not YAML"]),
        (manifest().replace("name: a", "name: 2024-01-01"), ["name: must be at most", "a letter, is '2024-01-01'"]),
        (manifest().replace("name: a", "name: true"), ["metadata.name: should be a valid string, is true: put it in"]),
        (
            manifest(model={"source": "bundled://emoji", "guidance": float("nan")}),
            ["is .nan, which is no number: write one"],
        ),
        (
            manifest(cache={"levels": [{"skipPercent": 1, "similarity": float("-inf")}]}),
            ["is -.inf, which is no number"],
        ),
        (
            manifest(model={"source": "bundled://emoji", "steps": 8}).replace("8", "1" * 5000),
            ["spec.model.steps: should be a valid integer, has 5,000 characters: write a smaller one"],
        ),
        ("\0", ["is not YAML"]),
        ("spec: {a: 1, b: 2, a: 3}", ["is not YAML", "the key 'a' stands there twice", "line 1, column 20"]),
        (manifest() + "---\n" + manifest(), ["holds 2 DiffusionCaches (a, a)", "leave one in it"]),
    ],
)
def test_a_bad_manifest_is_refused_by_name(text: str, words: list[str]) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, "cache.yaml")
    for word in ["cache.yaml", *words]:
        assert word in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("row", BAD, ids=lambda row: row.id)
def test_no_refusal_names_its_field_twice(row: Row) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(yaml.safe_dump(manifest_of(row)))
    for line in str(caught.value).splitlines()[1:]:
        path, _, advice = line.strip().partition(": ")
        assert path.rpartition(".")[2] != advice.split()[0].rpartition(".")[2], line


def test_a_date_is_a_text_as_it_is_to_the_api_server() -> None:
    dated = manifest(serving={"pod": {"labels": {"since": "X"}}}).replace("X", "2024-01-01")
    assert parse_manifest(dated).spec.serving.pod.labels == {"since": "2024-01-01"}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )
)
def test_nothing_but_a_manifest_error_comes_out(value: object) -> None:
    for text in (yaml.safe_dump(value), yaml.safe_dump({"spec": value}), manifest(model=value)):
        with pytest.raises(ManifestError):
            parse_manifest(text)


@pytest.mark.parametrize(
    ("text", "size"), [("64Mi", 64 * 2**20), ("2G", 2 * 10**9), ("4096", 4096), ("1Ti", 2**40), ("1.5Gi", 3 * 2**29)]
)
def test_quantities(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "Mi", "-1Mi", ".5Gi", "64 Mi", "1e3", "64mi"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        bytes_of(text)
