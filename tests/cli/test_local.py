"""What only a cluster has is refused by name, with what to write instead."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffcache.local import serve_manifest
from diffcache_core.resource.manifest import ManifestError
from diffcache_core.serving_config import ListenConfig

MILVUS = {"type": "External", "external": {"uri": "http://milvus:19530"}}
SECRET = {"name": "s", "key": "k"}


def external(**more: Any) -> dict[str, Any]:
    return {"type": "External", "external": {"address": "rediss://redis:6380"} | more}


def spec(*, ledger: dict[str, Any] | None = None, s3: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Shared by what others run, but for what is given."""
    cache = {"ledger": ledger or external(), "store": {"type": "S3", "s3": {"bucket": "states"} | (s3 or {})}}
    return {"model": {"source": "bundled://emoji"}, "index": MILVUS, "cache": cache} | more


def document(given: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "diffcache.io/v1alpha1",
        "kind": "DiffusionCache",
        "metadata": {"name": "a"},
        "spec": given,
    }


@pytest.mark.parametrize(
    ("given", "field", "remedy"),
    [
        (spec(ledger={"type": "Provisioned", "provisioned": {}}), "ledger.type Provisioned", "set Embedded"),
        (spec(ledger=external(passwordSecretRef=SECRET)), "external.passwordSecretRef", "redis://:PASSWORD@HOST:PORT"),
        (spec(ledger=external(caSecretRef=SECRET)), "ledger.external.caSecretRef", "SSL_CERT_FILE"),
        (spec(s3={"credentialsSecretRef": {"name": "s"}}), "store.s3.credentialsSecretRef", "AWS_ACCESS_KEY_ID"),
        (spec(s3={"caSecretRef": SECRET}), "store.s3.caSecretRef", "SSL_CERT_FILE"),
        (spec(model={"source": "some/one", "caSecretRef": SECRET}), "model.caSecretRef", "SSL_CERT_FILE"),
        (spec(serving={"replicas": 2}), "serving.replicas above 1", "set 1"),
        (spec(tuning={"mode": "Auto"}), "tuning.mode Auto", "set Recommend"),
    ],
)
def test_what_needs_a_cluster(tmp_path: Path, given: dict[str, Any], field: str, remedy: str) -> None:
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text(yaml.safe_dump(document(given)))
    with pytest.raises(ManifestError, match="needs a cluster") as caught:
        serve_manifest(manifest, tmp_path / "data", ListenConfig())
    assert field in str(caught.value)
    assert remedy in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_a_folder_that_takes_no_data_is_named(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text(yaml.safe_dump(document({"model": {"source": "bundled://emoji"}})))
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, usual[1]))  # as on a full disk: files open, and a write fails
    try:
        with pytest.raises(ManifestError) as caught:
            serve_manifest(manifest, tmp_path / "data", ListenConfig())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert str(caught.value) == f"{tmp_path}/data: File too large: choose another folder with --data-dir"
