"""What cannot be used is refused at the door: exit status 2, the field and the remedy, and no traceback."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import diffcache_serving
from tests.system.conftest import MANIFEST
from tests.system.serverprocess import ENVIRONMENT, ServerProcess, Zygote, free_listen, serving_config, up_command

MODEL = Path(diffcache_serving.__file__).parent / "models" / "emoji"
UNET = Path("unet") / "diffusion_pytorch_model.safetensors"


def assert_refused(status: int | None, stderr: str, *words: str) -> None:
    assert status == 2, stderr
    assert "Traceback" not in stderr
    for word in words:
        assert word in stderr


def run(command: list[str]) -> tuple[int, str]:
    ran = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT | {"COLUMNS": "200"}, check=False)
    return ran.returncode, ran.stderr


# ---- the manifest --------------------------------------------------------------------------------------------------


def manifest_with(**changes: Any) -> str:
    """The quickstart with values at dotted paths, `__` for a dot."""
    document = yaml.safe_load(MANIFEST.read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        block = document
        for name in parents:
            block = block.setdefault(name, {})
        block[last] = value
    return yaml.safe_dump(document)


MANIFESTS = {
    "not YAML": ("spec: [", "is not YAML", "line 1"),
    "empty": ("", "must hold a DiffusionCache: a mapping with apiVersion (diffcache.io/v1alpha1)", "holds nothing"),
    "a list": ("- spec\n", "must hold a DiffusionCache: a mapping with apiVersion"),
    "two documents": (
        f"{MANIFEST.read_text()}---\n{MANIFEST.read_text()}",
        "holds 2 DiffusionCaches (emoji, emoji)",
        "leave one in it",
    ),
    "unknown key": (manifest_with(spec__cache__capasity="1Gi"), "spec.cache.capasity: unknown key: remove it"),
    "wrong type": (manifest_with(spec__model__steps="many"), "spec.model.steps: should be a valid integer", "'many'"),
    "number for text": (manifest_with(spec__model__guidance=3.0), "spec.model.guidance: ", "put it in quotes"),
    "out of range": (manifest_with(spec__model__steps=0), "spec.model.steps: should be greater than or equal to 1"),
    "a size too small": (manifest_with(spec__cache__capacity="1Ki"), "spec.cache.capacity: must be at least 1Mi"),
    "unknown scheduler": (
        manifest_with(spec__model__scheduler="PNDM"),
        "spec.model.scheduler: should be 'DDIM', 'Euler' or 'DPM++2M', is 'PNDM'",
    ),
    "no model": (manifest_with(spec={}), "spec.model: is required: add it"),
    "an unknown kind of source": (
        manifest_with(spec__model__source="https://example.org/x"),
        "spec.model.source: must be bundled://emoji, a Hugging Face id such as ",
    ),
    "a claim": (
        manifest_with(spec__model__source="pvc://models/sd15"),
        "spec.model.source pvc:// needs a cluster: give file:// and a folder, or a Hugging Face id",
    ),
    "a Milvus beside the pods": (
        manifest_with(spec__index={"type": "Standalone", "standalone": {}}),
        "spec.index.type Standalone needs a cluster: set Lite, or External and the address of a Milvus",
    ),
    "another kind": (manifest_with(kind="Deployment"), "kind: should be 'DiffusionCache', is 'Deployment'"),
}


@pytest.mark.parametrize("case", MANIFESTS, ids=lambda case: case.replace(" ", "-"))
def test_a_manifest_that_cannot_be_used(tmp_path: Path, case: str) -> None:
    text, *words = MANIFESTS[case]
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text(text)
    assert_refused(*run(up_command(manifest, tmp_path / "data", free_listen())), str(manifest), *words)
    assert not (tmp_path / "data").exists()


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "manifest.yaml"
    assert_refused(*run(up_command(missing, tmp_path / "data", free_listen())), f"{missing}: No such file")


def test_what_kubectl_printed_is_served_and_a_secret_beside_it_is_not_kept(tmp_path: Path) -> None:
    resource = yaml.safe_load(MANIFEST.read_text())
    resource["metadata"] |= {"resourceVersion": "7", "managedFields": [{"manager": "kubectl"}]}
    resource["status"] = {"observedGeneration": 1}
    secret = {"kind": "Secret", "metadata": {"name": "s"}, "stringData": {"password": "hunter2"}}
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text(yaml.safe_dump({"kind": "List", "apiVersion": "v1", "items": [secret, resource]}))
    with socket.socket() as other:  # a taken port ends it as soon as it has read all it needs, before it imports torch
        other.bind(("127.0.0.1", 0))
        other.listen()
        listen = free_listen().model_copy(update={"metrics_port": other.getsockname()[1]})
        assert_refused(*run(up_command(manifest, tmp_path / "data", listen)), "cannot listen on")
    written = [path.read_text() for path in (tmp_path / "data").iterdir() if path.is_file()]
    assert any("bundled://emoji" in text for text in written)
    assert not any("hunter2" in text for text in written)
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "data").glob("*-[0-9]*.*")} == {0o600}


# ---- the model -----------------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def without_unet(model: Path) -> None:
    shutil.rmtree(model / "unet")


def with_a_truncated_unet(model: Path) -> None:
    truncate(model / UNET)


def with_an_empty_unet(model: Path) -> None:
    os.truncate(model / UNET, 0)


def without_weights(model: Path) -> None:
    (model / UNET).unlink()


def with_another_class(model: Path) -> None:
    path = model / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "FluxPipeline"}))


def with_a_truncated_model_index(model: Path) -> None:
    truncate(model / "model_index.json")


def without_model_index(model: Path) -> None:
    (model / "model_index.json").unlink()


def with_a_truncated_projection(model: Path) -> None:
    truncate(model / "diffcache" / "projection.safetensors")


def with_truncated_levels(model: Path) -> None:
    truncate(model / "diffcache" / "levels.json")


def nest(path: Path) -> None:
    path.write_text("[" * 100_000)


def with_a_deep_model_index(model: Path) -> None:
    nest(model / "model_index.json")


def with_deep_levels(model: Path) -> None:
    nest(model / "diffcache" / "levels.json")


def with_huge_levels(model: Path) -> None:
    os.truncate(model / "diffcache" / "levels.json", 2**40)


MODELS: list[tuple[Callable[[Path], None], tuple[str, ...]]] = [
    (without_model_index, ("holds no model_index.json", "give a folder as diffusers saves it", "bundled://emoji")),
    (with_a_truncated_model_index, ("model_index.json is damaged", "copy the model again")),
    (with_another_class, ("is a FluxPipeline; diffcache serves: StableDiffusionPipeline",)),
    (without_unet, ("unet", "copy the model again")),
    (without_weights, ("unet", "a file is missing or damaged", "copy the model again")),
    (with_a_truncated_unet, ("a file is missing or damaged", "copy the model again")),
    (with_an_empty_unet, ("a file is missing or damaged", "copy the model again")),
    (with_a_truncated_projection, ("projection.safetensors is damaged", "copy it again")),
    (with_truncated_levels, ("levels.json is damaged", "run `diffcache calibrate` again")),
    (with_a_deep_model_index, ("model_index.json is damaged", "nested too deep")),
    (with_deep_levels, ("levels.json is damaged", "nested too deep")),
    (with_huge_levels, ("levels.json is damaged", "has more than")),
]


@pytest.mark.parametrize(
    ("damage", "words"),
    [pytest.param(damage, words, id=damage.__name__) for damage, words in MODELS],
)
def test_a_model_folder_that_cannot_be_used(
    zygote: Zygote, tmp_path: Path, damage: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    damage(model)
    config = serving_config(tmp_path / "data", source=f"file://{model}")
    with ServerProcess.forked(zygote, config, tmp_path) as server:
        assert_refused(server.wait(), server.stderr(), f"diffcache: model file://{model}", *words)


@pytest.mark.parametrize(
    ("source", "remedy"),
    [("bundled://paintings", "or one of bundled://emoji"), ("file:///nowhere", "give a folder as diffusers saves it")],
)
def test_a_model_that_is_not_there(zygote: Zygote, tmp_path: Path, source: str, remedy: str) -> None:
    config = serving_config(tmp_path / "data", source=source)
    with ServerProcess.forked(zygote, config, tmp_path) as server:
        assert_refused(server.wait(), server.stderr(), f"diffcache: model {source}", "model_index.json", remedy)


@pytest.mark.slow  # imports torch in earnest: 8 s
def test_up_ends_with_what_the_serving_process_says(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text(manifest_with(spec__model__source="file:///nowhere"))
    assert_refused(
        *run(up_command(manifest, tmp_path / "data", free_listen())),
        "diffcache: model file:///nowhere",
        "give a folder",
    )


# ---- ports, folders, config ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--port", "--admin-port", "--metrics-port"])
def test_a_port_that_is_taken(tmp_path: Path, option: str) -> None:
    field = option.removeprefix("--").replace("-", "_")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        listen = free_listen().model_copy(update={field: port})
        status, stderr = run(up_command(MANIFEST, tmp_path / "data", listen))
    assert_refused(
        status, stderr, f"cannot listen on 127.0.0.1:{port}", "already in use", f"choose another with {option}"
    )


@pytest.mark.parametrize("option", ["--host", "--admin-host"])
def test_an_address_of_another_machine(tmp_path: Path, option: str) -> None:
    status, stderr = run([*up_command(MANIFEST, tmp_path / "data", free_listen()), option, "192.0.2.1"])
    assert_refused(status, stderr, "cannot listen on 192.0.2.1:", f"choose another with {option}")


@pytest.mark.parametrize("option", ["--port", "--admin-port", "--metrics-port"])
def test_a_port_that_is_none(tmp_path: Path, option: str) -> None:
    command = up_command(MANIFEST, tmp_path / "data", free_listen())
    command[command.index(option) + 1] = "65536"
    assert_refused(*run(command), f"'{option}'", "65535")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "read-only"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("nothing is read-only to root, and mounting is not allowed")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_data_folder_that_is_read_only(read_only: Path) -> None:
    status, stderr = run(up_command(MANIFEST, read_only / "data", free_listen()))
    assert_refused(status, stderr, str(read_only), "Read-only file system", "choose another folder with --data-dir")


def test_a_data_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, stderr = run(up_command(MANIFEST, tmp_path / "file" / "data", free_listen()))
    assert_refused(status, stderr, str(tmp_path / "file"), "Not a directory", "choose another folder with --data-dir")


def serving_command(config: Path) -> list[str]:
    return [sys.executable, "-m", "diffcache_serving", "--config", str(config)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ("Invalid JSON",)),
        ("[]", ("ServingConfig",)),
        ("{}", ("name", "data_dir", "model")),
        ('{"batch_max_size": "x"}', ("batch_max_size", "valid integer")),
        ("[" * 100_000, ("recursion limit",)),
        ("x" * 10**6, ("has more than",)),
    ],
    ids=["broken", "a-list", "empty", "wrong-type", "deep", "huge"],
)
def test_a_config_that_cannot_be_used(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    config = tmp_path / "config.json"
    config.write_text(text)
    assert_refused(*run(serving_command(config)), "diffcache: ", str(config), *words)


def test_a_config_that_is_not_there(tmp_path: Path) -> None:
    assert_refused(*run(serving_command(tmp_path / "config.json")), "No such file", str(tmp_path / "config.json"))


@pytest.mark.parametrize("name", ["states", "ledger.db"])
def test_a_data_folder_with_something_else_in_it(zygote: Zygote, tmp_path: Path, name: str) -> None:
    config = serving_config(tmp_path / "data")
    config.data_dir.mkdir()
    if name == "states":
        (config.data_dir / name).touch()  # a file where a folder should be
    else:
        (config.data_dir / name).mkdir()  # and the other way round
    with ServerProcess.forked(zygote, config, tmp_path) as server:
        assert_refused(server.wait(), server.stderr(), str(config.data_dir / name))


def test_a_tls_file_that_is_not_there(zygote: Zygote, tmp_path: Path) -> None:
    listen = free_listen().model_copy(update={"tls_certificate": "/nowhere.pem", "tls_key": "/nowhere.key"})
    with ServerProcess.forked(zygote, serving_config(tmp_path / "data", listen=listen), tmp_path) as server:
        assert_refused(server.wait(), server.stderr())
        assert re.search(r"diffcache: TLS: /nowhere\.(pem|key): No such file", server.stderr())


def test_a_tls_file_that_is_no_certificate(zygote: Zygote, tmp_path: Path) -> None:
    pem = tmp_path / "noise.pem"
    pem.write_text("noise")
    listen = free_listen().model_copy(update={"tls_certificate": str(pem), "tls_key": str(pem)})
    with ServerProcess.forked(zygote, serving_config(tmp_path / "data", listen=listen), tmp_path) as server:
        assert_refused(server.wait(), server.stderr(), "diffcache: ")


def test_a_milvus_lite_folder_that_cannot_be_used(zygote: Zygote, tmp_path: Path) -> None:
    config = serving_config(tmp_path / "data", index="Lite")
    config.data_dir.mkdir()
    (config.data_dir / "milvus").touch()
    with ServerProcess.forked(zygote, config, tmp_path) as server:
        assert_refused(server.wait(), server.stderr(), str(config.data_dir / "milvus"))
