"""Serves a manifest on this machine, with the same config and the same process as in a cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from diffcache.extras import need_modules
from diffcache.manifests import read_manifest
from diffcache.output import note
from diffcache_core.choices import SourceKind
from diffcache_core.documents import DocumentError, read_document
from diffcache_core.os_errors import explain_os_error
from diffcache_core.private_files import make_private_folder, write_private
from diffcache_core.resource.manifest import ManifestError
from diffcache_core.resource.spec import DiffusionCacheSpec, IndexType, LedgerType, ScalingMode, TuningMode, is_shared
from diffcache_core.resource.status import TuningStatus
from diffcache_core.resource_to_config import Host, build_serving_config
from diffcache_core.serving_config import ListenConfig
from diffcache_core.tuning.record import RECORD_FILE, followed, record_for

DATA_ENVIRONMENT = "XDG_DATA_HOME"  # freedesktop.org: the folder for a user's data


def default_data_dir(name: str) -> Path:
    root = os.environ.get(DATA_ENVIRONMENT) or Path.home() / ".local" / "share"
    return Path(root) / "diffcache" / name


def _cluster_only(spec: DiffusionCacheSpec) -> Iterator[tuple[str, str]]:
    """Yields the fields of the manifest that need a cluster, each with what to write instead."""
    index, ledger, s3 = spec.index.external, spec.cache.ledger.external, spec.cache.store.s3
    checks = (
        (
            SourceKind.of(spec.model.source) is SourceKind.PVC,
            "spec.model.source pvc://",
            "give file:// and a folder, or a Hugging Face id",
        ),
        (
            spec.index.type is IndexType.STANDALONE,
            "spec.index.type Standalone",
            "set Lite, or External and the address of a Milvus",
        ),
        (
            index and index.token_secret_ref,
            "spec.index.external.tokenSecretRef",
            "write the uri as http://USER:PASSWORD@HOST:PORT",
        ),
        (
            index and index.ca_secret_ref,
            "spec.index.external.caSecretRef",
            "name the PEM file in GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        ),
        (
            spec.cache.ledger.type is LedgerType.PROVISIONED,
            "spec.cache.ledger.type Provisioned",
            "set Embedded, or External and the address of a Redis",
        ),
        (
            ledger and ledger.password_secret_ref,
            "spec.cache.ledger.external.passwordSecretRef",
            "write the address as redis://:PASSWORD@HOST:PORT",
        ),
        (
            ledger and ledger.ca_secret_ref,
            "spec.cache.ledger.external.caSecretRef",
            "name the PEM file in SSL_CERT_FILE",
        ),
        (
            s3 and s3.credentials_secret_ref,
            "spec.cache.store.s3.credentialsSecretRef",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment",
        ),
        (
            s3 and s3.ca_secret_ref,
            "spec.cache.store.s3.caSecretRef",
            "name the PEM file in SSL_CERT_FILE",
        ),
        (
            spec.model.ca_secret_ref,
            "spec.model.caSecretRef",
            "name the PEM file in SSL_CERT_FILE",
        ),
        (
            spec.serving.replicas > 1,
            "spec.serving.replicas above 1",
            "set 1, and run `diffcache up` again with other ports and --data-dir",
        ),
        (
            spec.tuning.mode is TuningMode.AUTO and is_shared(spec),
            "spec.tuning.mode Auto of a cache that several processes may share",
            "set Recommend, and write what it recommends into the manifest of each",
        ),
    )
    yield from ((field, remedy) for has_it, field, remedy in checks if has_it)


def _idle(spec: DiffusionCacheSpec) -> Iterator[str]:
    """Yields the fields that have an effect only in a cluster, each with a reason."""
    if spec.serving.replicas == 0:
        yield "spec.serving.replicas 0: this serves all the same"
    if spec.autoscaling.mode is ScalingMode.OPERATOR:
        yield "spec.autoscaling: this is the only process"
    if spec.prometheus.url is not None:
        yield "spec.prometheus.url: the process reads its own counters"


def _read_record(folder: Path) -> TuningStatus | None:
    """Returns the tuner's record of an earlier `up`, or None if there is none or it cannot be read."""
    try:
        return TuningStatus.model_validate_json(read_document(folder / RECORD_FILE))
    except (DocumentError, ValidationError):
        return None


def serve_manifest(manifest: Path, data_dir: Path | None, listen: ListenConfig, name: str = "") -> None:
    """Replaces this process by the serving process, so that signals and the exit status are those of the server.

    Raises ManifestError if the manifest cannot be used.
    """
    resource = read_manifest(manifest, name, private=True)
    needed = ["torch", "diffusers", "grpc_health"] + ["milvus_lite"] * (resource.spec.index.type is IndexType.LITE)
    for field, remedy in _cluster_only(resource.spec):
        raise ManifestError(f"{manifest}: {field} needs a cluster: {remedy}")
    for field in _idle(resource.spec):
        note(f"{manifest}: no use outside of a cluster: {field}")
    need_modules("serving", needed)
    folder = (data_dir or default_data_dir(resource.metadata.name)).absolute()
    record = record_for(resource.spec, _read_record(folder), time.time())
    config = build_serving_config(resource, Host(folder, listen), followed(resource.spec, record))
    try:
        make_private_folder(folder)
        copy = folder / f"manifest-{listen.port}.yaml"
        # A copy of the served resource, so that later changes of the file have no effect. It leaves out other resources
        # in the file, such as a Secret.
        write_private(copy, resource.model_dump_json(by_alias=True, exclude_unset=True, indent=2))
        path = folder / f"serving-{listen.port}.json"
        write_private(path, config.model_dump_json(indent=2))
    except OSError as error:
        raise ManifestError(explain_os_error(error, folder, "choose another folder with --data-dir")) from None
    if sys.stderr.isatty():  # a log does not need this line
        note(f"Loading {config.model.source}; the first time takes some seconds more.")
    if SourceKind.of(config.model.source) is SourceKind.HUB:  # in a cluster an init container downloads the model
        fetched = subprocess.run([sys.executable, "-m", "diffcache_serving.fetch", "--config", str(path)], check=False)
        if fetched.returncode:
            sys.exit(fetched.returncode)  # the download has already printed the reason
    command = [sys.executable, "-m", "diffcache_serving", "--config", str(path)]
    if resource.spec.tuning.mode is not TuningMode.DISABLED:
        command += ["--manifest", str(copy)]
    os.execv(command[0], command)  # noqa: S606  # our own program, and the arguments are a list
