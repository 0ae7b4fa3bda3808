"""What a serving process is told: one truth for the operator's ConfigMap and for `diffcache up`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from diffcache_core.names import ADMIN_PORT, GRPC_PORT, METRICS_PORT
from diffcache_core.pod import SecretKeyRef
from diffcache_core.quantities import bytes_of
from diffcache_core.resume import Level, Levels
from diffcache_core.spec import DiffusionCache, DType, IndexSpec, IndexType, Scheduler, Scope
from diffcache_core.states import StateKind

LITE_MAX_ENTRIES = 10_000
"""Milvus Lite walks all rows in Python for each search: 15 ms at 10,000 rows, 105 ms at 100,000 (measured)."""

MILVUS_MAX_ENTRIES = 1_000_000
"""A real Milvus answers in milliseconds far beyond; the bound only keeps the ledger's repair at start short."""


class _Config(BaseModel):
    # A pod must start with the config of a newer operator, so unknown keys are ignored here and only here.
    model_config = ConfigDict(extra="ignore", frozen=True)


class ModelConfig(_Config):
    source: str
    revision: str = ""  # of a Hugging Face id; empty: main
    scheduler: Scheduler
    dtype: DType
    steps: int | None  # None: the model's own default
    guidance: float | None
    width: int | None
    height: int | None


class LevelConfig(_Config):
    skip_percent: int
    similarity: float


class CacheConfig(_Config):
    capacity_bytes: int
    max_entries: int
    state: StateKind
    scope: Scope
    levels: tuple[LevelConfig, ...] | None  # None: the model's own table

    def level_table(self, reseed_skip_percent: int) -> Levels | None:
        """The manifest's table, with the model's cap for the same prompt under another seed."""
        if self.levels is None:
            return None
        return Levels(tuple(Level(v.skip_percent, v.similarity) for v in self.levels), reseed_skip_percent)


class IndexConfig(_Config):
    type: Literal["Lite", "Standalone", "External", "Memory"]  # Memory is rebuilt from the ledger at start: for tests
    uri: str = ""
    token_file: Path | None = None  # user:password or an API key
    ca_file: Path | None = None  # PEM


class ListenConfig(_Config):
    host: str = "127.0.0.1"
    port: int = GRPC_PORT
    admin_host: str = "127.0.0.1"
    admin_port: int = ADMIN_PORT
    metrics_host: str = "127.0.0.1"
    metrics_port: int = METRICS_PORT
    tls_certificate: str = ""  # PEM files; both or none
    tls_key: str = ""


class ServingConfig(_Config):
    name: str
    data_dir: Path
    model: ModelConfig
    batch_max_size: int
    queue_max_steps: int
    cache: CacheConfig
    index: IndexConfig
    listen: ListenConfig = ListenConfig()
    require_cuda: bool = False  # rather end with the reason than serve on a CPU
    space_grace_seconds: int = 3600  # entries of an earlier model are kept so long
    drain_seconds: float = 25.0  # for requests in flight at SIGTERM; below Kubernetes' default grace of 30 s


@dataclass(frozen=True)
class Surroundings:
    """What a serving process finds where it runs; a laptop and a pod differ in nothing else."""

    data_dir: Path
    listen: ListenConfig
    standalone_uri: str = ""  # of the Milvus beside the pods
    secrets_dir: Path | None = None  # holds index-token and index-ca if the resource names them


INDEX_TOKEN, INDEX_CA = "index-token", "index-ca"  # file names below `secrets_dir`


def build_serving_config(resource: DiffusionCache, around: Surroundings) -> ServingConfig:
    """The serving process's view of a resource. Pure."""
    spec = resource.spec
    levels = spec.cache.levels
    return ServingConfig(
        name=resource.metadata.name,
        data_dir=around.data_dir,
        model=ModelConfig(
            source=spec.model.source,
            revision=spec.model.revision or "",
            scheduler=spec.model.scheduler,
            dtype=spec.model.dtype,
            steps=spec.model.steps,
            guidance=None if spec.model.guidance is None else float(spec.model.guidance),
            width=spec.model.width,
            height=spec.model.height,
        ),
        batch_max_size=spec.serving.batch.max_size,
        queue_max_steps=spec.serving.queue.max_steps,
        cache=CacheConfig(
            capacity_bytes=bytes_of(spec.cache.capacity),
            max_entries=LITE_MAX_ENTRIES if spec.index.type is IndexType.LITE else MILVUS_MAX_ENTRIES,
            state=spec.cache.state,
            scope=spec.cache.scope,
            levels=None
            if levels is None
            else tuple(
                LevelConfig(skip_percent=level.skip_percent, similarity=float(level.similarity)) for level in levels
            ),
        ),
        index=_index_config(spec.index, around),
        listen=around.listen,
        require_cuda=spec.serving.gpu.count > 0,
        space_grace_seconds=spec.cache.space_grace_seconds,
    )


def _index_config(index: IndexSpec, around: Surroundings) -> IndexConfig:
    external = index.external
    if external is None:
        uri = around.standalone_uri if index.type is IndexType.STANDALONE else ""
        return IndexConfig(type=index.type.value, uri=uri)

    def secret(reference: SecretKeyRef | None, name: str) -> Path | None:
        return around.secrets_dir / name if around.secrets_dir is not None and reference is not None else None

    return IndexConfig(
        type=index.type.value,
        uri=external.uri,
        token_file=secret(external.token_secret_ref, INDEX_TOKEN),
        ca_file=secret(external.ca_secret_ref, INDEX_CA),
    )
