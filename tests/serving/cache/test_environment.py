"""A shell's variables for other programs, and a folder's .env, change nothing of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pymilvus
import pytest

from diffcache_core.serving_config import StoreConfig
from diffcache_serving.cache.s3 import S3StateStore
from diffcache_serving.environment import ALLOCATOR, CREDENTIALS, drop_foreign_variables, foreign
from diffcache_serving.process_setup import check_allocator
from diffcache_serving.values.errors import ConfigError

MANIFEST = Path(__file__).parents[3] / "examples" / "quickstart.yaml"

HOSTILE = {
    "MILVUS_URI": "nonsense",
    "MILVUS_CONN_TIMEOUT": "long",
    "MILVUS_DEFAULT_CONNECTION": "nonsense",
    "MILVUS_LITE_WAL_SIZE_LIMIT_BYTES": "none",
    "PROMETHEUS_MULTIPROC_DIR": "/nowhere",
    "HF_HUB_ETAG_TIMEOUT": "long",
    "HUGGINGFACE_CO_STAGING": "1",
    "LOGLEVEL": "debug",
    "TORCH_LOGS": "zzz",
    "TORCH_CPP_LOG_LEVEL": "zzz",
    "TORCHINDUCTOR_COMPILE_THREADS": "many",
}
OF_S3 = {
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_S3_EXPRESS": "true",
    "AWS_SKIP_SIGNATURE": "nonsense",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
    "AWS_BUCKET": "another",
    "AWS_REGION": "mars-1",
    "AWS_SESSION_TOKEN": "",
    "AWS_PROFILE": "somebody",
}
IMPORTS = (
    "import os, diffcache_serving.cache.milvus, diffcache_serving.hub, diffcache_serving.metrics; "
    "import torch.distributed.elastic.utils.logging as elastic; elastic.get_logger('x'); "
    "diffcache_serving.metrics.Metrics('m').entries.set(1); print(os.environ.get('https_proxy'))"
)


def imported(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", IMPORTS], env=given, capture_output=True, text=True, check=False)


def test_every_library_is_imported_as_without_them() -> None:
    run = imported(HOSTILE)
    assert (run.returncode, run.stdout) == (0, "None\n"), run.stderr


def test_a_file_beside_the_virtual_environment_is_not_read(tmp_path: Path) -> None:
    packages = tmp_path / "lib"
    packages.mkdir()
    (packages / "pymilvus").symlink_to(Path(pymilvus.__file__).parent)  # so that its parents are these
    (tmp_path / ".env").write_text("MILVUS_URI=nonsense\nhttps_proxy=http://127.0.0.1:1\n")
    run = imported({"PYTHONPATH": str(packages)})
    assert (run.returncode, run.stdout) == (0, "None\n"), run.stderr


@pytest.mark.shared
async def test_a_bucket_is_the_configs(bucket: StoreConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in OF_S3.items():
        monkeypatch.setenv(name, value)
    store = S3StateStore(bucket)
    await store.put("ab1", b"one")
    assert await store.get("ab1") == b"one"
    assert set(await store.listed()) == {"ab1"}


def test_what_would_change_pictures_goes_too() -> None:
    names = ["USE_TORCH", "DIFFUSERS_ATTN_BACKEND", "TRANSFORMERS_CACHE", "ACCELERATE_MIXED_PRECISION", "HF_HUB_CACHE"]
    names += ["LOGLEVEL", "TORCH_LOGS", "TORCHELASTIC_RUN_ID", "PYTORCH_JIT", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"]
    assert foreign([*names, *ALLOCATOR, "HF_TOKEN", "HF_ENDPOINT", "PATH", "USER", "https_proxy"]) == names


def test_credentials_stay_and_the_rest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("AWS_REGION", "mars-1")
    monkeypatch.setenv("MILVUS_URI", "http://milvus:1")
    drop_foreign_variables()
    assert {os.environ.get(name) for name in CREDENTIALS} == {"mine"}
    assert foreign(os.environ) == []


@pytest.mark.parametrize("command", ["up", "calibrate"])
@pytest.mark.parametrize("name", ALLOCATOR)
def test_options_of_the_allocator_that_torch_cannot_use(
    command: str, name: str, tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    ports = zip(("--port", "--admin-port", "--metrics-port"), map(str, free_ports(3)), strict=True)
    words = {
        "up": ["-f", str(MANIFEST), "--data-dir", str(tmp_path), *(word for pair in ports for word in pair)],
        "calibrate": ["--work-dir", str(tmp_path)],
    }
    given = [sys.executable, "-m", "diffcache.main", command, *words[command]]
    environment = {**os.environ, name: "zzz"}
    run = subprocess.run(given, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 2, run.stderr
    assert [line for line in run.stderr.splitlines() if name in line] == run.stderr.splitlines()[-1:]
    assert "unset it" in run.stderr
    assert "Traceback" not in run.stderr


def test_options_of_the_allocator_are_taken_as_torch_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "backend:cudaMallocAsync,garbage_collection_threshold:0.8")
    check_allocator()
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:1")
    with pytest.raises(ConfigError, match=r"^PYTORCH_ALLOC_CONF: .*must be >= 20"):
        check_allocator()
