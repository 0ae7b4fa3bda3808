"""Removes environment variables that libraries would read against our configuration.

A developer's shell and a `.env` file hold variables for other programs. In the versions that we use, these libraries
read the following variables; the last column says which of them we leave to the library:

| library | reads | left to it |
|---|---|---|
| pymilvus, milvus-lite | `.env` beside the virtual environment; `MILVUS_*`: address, time-outs, memory | nothing |
| obstore | `AWS_*`: endpoint, bucket, region, encryption, every option of its client; credentials | the credentials |
| huggingface-hub | `HF_*`, `HUGGINGFACE_*`: endpoint, token, caches, time-outs, staging | endpoint, token, cache, Xet |
| diffusers, transformers, accelerate | `DIFFUSERS_*`, `TRANSFORMERS_*`, `ACCELERATE_*`, `USE_*`: back ends | nothing |
| torch | `TORCH*`, `PYTORCH_*`, `LOGLEVEL`: logs, compilers, debugging, precision | its allocator's options |
| prometheus-client | `PROMETHEUS_*`: files that several processes share | nothing |
| redis | nothing | |
| kubernetes, kopf (the operator) | `KUBERNETES_SERVICE_*`, `KUBECONFIG`: the cluster; proxies | all but proxies |
| grpc | proxies; `GRPC_*`: traces, certificates | all: see diffcache_core.net.proxies |
"""

from __future__ import annotations

import os
from collections.abc import Iterable

CREDENTIALS = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_ROLE_ARN",  # web identity: EKS and others set these themselves
        "AWS_ROLE_SESSION_NAME",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_STS_ENDPOINT",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",  # ECS
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",  # EKS Pod Identity
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_METADATA_ENDPOINT",  # EC2
        "AWS_IMDSV1_FALLBACK",
    }
)

HUB = frozenset(
    {
        "HF_ENDPOINT",
        "HF_TOKEN",
        "HF_HOME",
        "HF_HUB_OFFLINE",
        "HF_HUB_DISABLE_PROGRESS_BARS",
        "HF_HUB_DISABLE_TELEMETRY",
        "HF_HUB_DISABLE_XET",
    }
)

ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # options for GPU memory; our config has no such field

KEPT = CREDENTIALS | HUB | frozenset(ALLOCATOR)

PREFIXES = (
    "ACCELERATE_",
    "AWS_",
    "DIFFUSERS_",
    "HF_",
    "HUGGINGFACE_",
    "HUGGING_FACE_",
    "MILVUS_",
    "PROMETHEUS_",
    "PYTORCH_",
    "TORCH",  # TORCH_, TORCHDYNAMO_, TORCHELASTIC_, TORCHINDUCTOR_
    "TRANSFORMERS_",
    "prometheus_multiproc_dir",
)

NAMES = frozenset(
    {
        "LOGLEVEL",  # torch.distributed's
        "USE_FLAX",
        "USE_JAX",
        "USE_ONNX",
        "USE_SAFETENSORS",
        "USE_TF",
        "USE_TORCH",
        "USE_TORCH_XLA",
    }
)


def foreign(names: Iterable[str]) -> list[str]:
    """Returns the variables that a library would read although we do not leave them to it. Pure."""
    return [name for name in names if name in NAMES or (name.startswith(PREFIXES) and name not in KEPT)]


def drop_foreign_variables() -> None:
    """Removes foreign variables. Call it before the libraries are imported, and before a client is made that reads the
    environment itself."""
    for name in [*foreign(os.environ), *(name for name in KEPT if os.environ.get(name) == "")]:
        del os.environ[name]
    os.environ["PYTHON_DOTENV_DISABLED"] = "1"  # pymilvus looks for a .env in all folders above its own
