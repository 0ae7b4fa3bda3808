"""A manifest served on this machine: the same config as in a cluster, and the same process."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from diffcache_core.manifest import ManifestError, parse_manifest
from diffcache_core.serving_config import ListenConfig, Surroundings, build_serving_config
from diffcache_core.spec import IndexType

DATA_ENVIRONMENT = "XDG_DATA_HOME"  # freedesktop.org: where programs keep a user's data


def default_data_dir(name: str) -> Path:
    root = os.environ.get(DATA_ENVIRONMENT) or Path.home() / ".local" / "share"
    return Path(root) / "diffcache" / name


def serve_manifest(manifest: Path, data_dir: Path | None, listen: ListenConfig) -> None:
    """Becomes the serving process, so that signals and the exit status are its own.

    Raises ManifestError for a manifest that cannot be used.
    """
    try:
        text = manifest.read_text(encoding="utf-8")
    except OSError as error:
        raise ManifestError(f"{manifest}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{manifest} is not a text file in UTF-8") from None
    resource = parse_manifest(text, str(manifest))
    needed = ["torch", "diffusers", "grpc_health"] + ["milvus_lite"] * (resource.spec.index.type is IndexType.LITE)
    missing = [module for module in needed if importlib.util.find_spec(module) is None]
    if missing:
        raise ManifestError(f"serving needs {', '.join(missing)}: install diffcache[local]")
    folder = (data_dir or default_data_dir(resource.metadata.name)).absolute()
    config = build_serving_config(resource, Surroundings(folder, listen))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"serving-{listen.port}.json"
        path.write_text(config.model_dump_json(indent=2), encoding="utf-8")
    except OSError as error:
        raise ManifestError(f"{error.filename}: {error.strerror}: choose another folder with --data-dir") from None
    command = [sys.executable, "-m", "diffcache_serving", "--config", str(path)]
    os.execv(command[0], command)  # noqa: S606  # our own program, and the arguments are a list
