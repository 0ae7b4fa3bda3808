"""What a serving process is told: one truth for the operator's ConfigMap and for `diffcache up`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from diffcache_core.names import ADMIN_PORT, GRPC_PORT, METRICS_PORT
from diffcache_core.pod import SecretKeyRef
from diffcache_core.quantities import bytes_of
from diffcache_core.resume import Level, Levels
from diffcache_core.spec import (
    DiffusionCache,
    DiffusionCacheSpec,
    DType,
    IndexSpec,
    IndexType,
    LedgerType,
    LevelSpec,
    Scheduler,
    Scope,
    StoreType,
    TuningMode,
    split_uri,
)
from diffcache_core.states import StateKind
from diffcache_core.status import LevelStatus, TuningStatus

REVISION_DIGITS = 12  # hexadecimal: enough to tell the revisions of one file apart, short enough for a label

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
    ca_file: Path | None = None  # PEM, for the hub's server
    scheduler: Scheduler
    dtype: DType
    steps: int | None  # None: the model's own default
    guidance: float | None
    width: int | None
    height: int | None
    max_pixels: int | None = None  # of any request; None: a multiple of the model's own


class LevelConfig(_Config):
    skip_percent: int
    similarity: float


class StoreConfig(_Config):
    type: StoreType = StoreType.VOLUME
    bucket: str = ""  # the rest is of S3; the credentials are in the environment, as AWS names them
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    ca_file: Path | None = None  # PEM


class LedgerConfig(_Config):
    address: str = ""  # redis://HOST:PORT/DATABASE; empty: SQLite in the data folder
    password_file: Path | None = None
    ca_file: Path | None = None  # PEM
    prefix: str = ""  # tells caches on one Redis apart; empty: the cache's name


class QualityConfig(_Config):
    """What is measured beside the requests, for the tuner."""

    shadow_percent: int = 0  # of the steps; 0: nothing is compared
    scorer: str = ""  # source of a CLIPModel's folder; empty: quality is not measured


class TuningConfig(_Config):
    revision: int = 0  # of the tuner's decision that `cache` shows; exported as diffcache_tuning_revision
    shadow_caches: bool = False  # simulate other capacities beside the requests
    chose_levels: bool = False  # `cache.levels` are the tuner's, not the manifest's


class CacheConfig(_Config):
    capacity_bytes: int
    max_entries: int
    state: StateKind
    scope: Scope
    levels: tuple[LevelConfig, ...] | None  # None: the model's own table
    store: StoreConfig = StoreConfig()
    ledger: LedgerConfig = LedgerConfig()

    @property
    def is_shared(self) -> bool:
        """Whether other processes may write to the same ledger and store."""
        return bool(self.ledger.address)

    def level_table(self, reseed_skip_percent: int) -> Levels | None:
        """The manifest's table, with the model's cap for the same prompt under another seed."""
        if self.levels is None:
            return None
        return Levels(tuple(Level(v.skip_percent, v.similarity) for v in self.levels), reseed_skip_percent)


class IndexConfig(_Config):
    type: Literal["Lite", "Standalone", "External", "Memory"]  # Memory is rebuilt from the ledger at start: for tests
    uri: str = ""
    database: str = ""  # empty: Milvus' default
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
    quality: QualityConfig = QualityConfig()
    tuning: TuningConfig = TuningConfig()
    require_cuda: bool = False  # rather end with the reason than serve on a CPU
    space_grace_seconds: int = 3600  # entries of an earlier model are kept so long
    drain_seconds: float = 25.0  # for requests in flight at SIGTERM; below Kubernetes' default grace of 30 s


@dataclass(frozen=True)
class Surroundings:
    """What a serving process finds where it runs; a laptop and a pod differ in nothing else."""

    data_dir: Path
    listen: ListenConfig
    standalone_uri: str = ""  # of the Milvus beside the pods
    provisioned_ledger: str = ""  # address of the Redis beside the pods
    secrets_dir: Path | None = None  # holds the files named below that the resource has Secrets for


INDEX_TOKEN, INDEX_CA = "index-token", "index-ca"  # file names below `secrets_dir`
MODEL_CA, STORE_CA = "model-ca", "store-ca"
LEDGER_PASSWORD, LEDGER_CA = "ledger-password", "ledger-ca"

BUNDLED_SCORERS = {"bundled://emoji": "bundled://emoji-clip"}


def build_serving_config(
    resource: DiffusionCache, around: Surroundings, tuning: TuningStatus | None = None
) -> ServingConfig:
    """The serving process's view of a resource; `tuning`: the tuner's record, if it is to be followed. Pure."""
    spec = resource.spec
    capacity, levels = effective_cache(spec, tuning)
    return ServingConfig(
        name=resource.metadata.name,
        data_dir=around.data_dir,
        model=ModelConfig(
            source=spec.model.source,
            revision=spec.model.revision or "",
            ca_file=_secret(spec.model.ca_secret_ref, MODEL_CA, around),
            scheduler=spec.model.scheduler,
            dtype=spec.model.dtype,
            steps=spec.model.steps,
            guidance=None if spec.model.guidance is None else float(spec.model.guidance),
            width=spec.model.width,
            height=spec.model.height,
            max_pixels=spec.model.max_pixels,
        ),
        batch_max_size=spec.serving.batch.max_size,
        queue_max_steps=spec.serving.queue.max_steps,
        cache=CacheConfig(
            capacity_bytes=capacity,
            max_entries=LITE_MAX_ENTRIES if spec.index.type is IndexType.LITE else MILVUS_MAX_ENTRIES,
            state=spec.cache.state,
            scope=spec.cache.scope,
            levels=levels,
            store=_store_config(resource, around),
            ledger=_ledger_config(resource, around),
        ),
        index=_index_config(spec.index, around),
        listen=around.listen,
        quality=_quality_config(spec),
        tuning=TuningConfig(
            revision=tuning.revision if tuning is not None else 0,
            shadow_caches=spec.tuning.mode is not TuningMode.DISABLED,
            chose_levels=tuning is not None and bool(tuning.levels),
        ),
        require_cuda=spec.serving.gpu.count > 0,
        space_grace_seconds=spec.cache.space_grace_seconds,
    )


def effective_cache(
    spec: DiffusionCacheSpec, tuning: TuningStatus | None
) -> tuple[int, tuple[LevelConfig, ...] | None]:
    """Capacity in bytes and levels: the spec's, unless the tuner's record says otherwise."""
    capacity, levels = bytes_of(spec.cache.capacity), spec.cache.levels
    chosen: Sequence[LevelSpec] | Sequence[LevelStatus] | None = levels
    if tuning is not None and tuning.capacity:
        capacity = bytes_of(tuning.capacity)
    if tuning is not None and tuning.levels:
        chosen = tuning.levels
    if chosen is None:
        return capacity, None
    return capacity, tuple(
        LevelConfig(skip_percent=level.skip_percent, similarity=float(level.similarity)) for level in chosen
    )


def _store_config(resource: DiffusionCache, around: Surroundings) -> StoreConfig:
    s3 = resource.spec.cache.store.s3
    if s3 is None:
        return StoreConfig()
    folder = [s3.prefix, resource.metadata.namespace, resource.metadata.name]
    return StoreConfig(
        type=StoreType.S3,
        bucket=s3.bucket,
        prefix="/".join(part for part in folder if part),
        endpoint=s3.endpoint or "",
        region=s3.region,
        ca_file=_secret(s3.ca_secret_ref, STORE_CA, around),
    )


def _ledger_config(resource: DiffusionCache, around: Surroundings) -> LedgerConfig:
    ledger, external = resource.spec.cache.ledger, resource.spec.cache.ledger.external
    if ledger.type is LedgerType.EMBEDDED:
        return LedgerConfig()
    prefix = f"{resource.metadata.namespace}/{resource.metadata.name}"
    if external is None:
        return LedgerConfig(address=around.provisioned_ledger, prefix=prefix)
    return LedgerConfig(
        prefix=prefix,
        address=external.address,
        password_file=_secret(external.password_secret_ref, LEDGER_PASSWORD, around),
        ca_file=_secret(external.ca_secret_ref, LEDGER_CA, around),
    )


def _quality_config(spec: DiffusionCacheSpec) -> QualityConfig:
    quality = spec.tuning.quality
    if spec.tuning.mode is TuningMode.DISABLED:
        return QualityConfig()
    scorer = quality.scorer or BUNDLED_SCORERS.get(spec.model.source, "")
    return QualityConfig(shadow_percent=quality.shadow_percent, scorer=scorer)


def _index_config(index: IndexSpec, around: Surroundings) -> IndexConfig:
    external = index.external
    if external is None:
        uri = around.standalone_uri if index.type is IndexType.STANDALONE else ""
        return IndexConfig(type=index.type.value, uri=uri)
    uri, database = split_uri(external.uri)
    return IndexConfig(
        type=index.type.value,
        uri=uri,
        database=external.database or database,
        token_file=_secret(external.token_secret_ref, INDEX_TOKEN, around),
        ca_file=_secret(external.ca_secret_ref, INDEX_CA, around),
    )


def _secret(reference: SecretKeyRef | None, name: str, around: Surroundings) -> Path | None:
    return around.secrets_dir / name if around.secrets_dir is not None and reference is not None else None


def revision_of(file: bytes) -> str:
    """Tells one config file from another: what pods export, and what the operator waits for."""
    return hashlib.sha256(file).hexdigest()[:REVISION_DIGITS]
