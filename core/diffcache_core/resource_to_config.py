"""Makes the config of a serving process from the resource and the host. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffcache_core.choices import StoreType
from diffcache_core.quantities import bytes_of
from diffcache_core.resource.pod import SecretKeyRef
from diffcache_core.resource.spec import (
    DiffusionCache,
    DiffusionCacheSpec,
    IndexSpec,
    IndexType,
    LedgerType,
    LevelSpec,
    TuningMode,
    split_uri,
)
from diffcache_core.resource.status import LevelStatus, TuningStatus
from diffcache_core.serving_config import (
    CacheConfig,
    IndexConfig,
    LedgerConfig,
    LevelConfig,
    ListenConfig,
    ModelConfig,
    QualityConfig,
    ServingConfig,
    StoreConfig,
    TuningConfig,
)

LITE_MAX_ENTRIES = 10_000
"""Entries with Milvus Lite at most. It scans all rows in Python for each search: 15 ms at 10,000 rows, 105 ms at
100,000 (measured)."""

MILVUS_MAX_ENTRIES = 1_000_000
"""Entries with a Milvus server at most. It answers in milliseconds far beyond this number; the limit only keeps the
repair of the ledger at start short."""


@dataclass(frozen=True)
class Host:
    """The surroundings of a serving process. A laptop and a pod differ only in these values."""

    data_dir: Path
    listen: ListenConfig
    standalone_uri: str = ""  # of the Milvus beside the pods
    provisioned_ledger: str = ""  # address of the Redis beside the pods
    secrets_dir: Path | None = None  # has the files named below for which the resource names Secrets


INDEX_TOKEN, INDEX_CA = "index-token", "index-ca"  # file names below `secrets_dir`
MODEL_CA, STORE_CA = "model-ca", "store-ca"
LEDGER_PASSWORD, LEDGER_CA = "ledger-password", "ledger-ca"

BUNDLED_SCORERS = {"bundled://emoji": "bundled://emoji-clip"}


def build_serving_config(resource: DiffusionCache, host: Host, tuning: TuningStatus | None = None) -> ServingConfig:
    """Returns the config of a serving process for a resource. `tuning`: the tuner's record, if the process must follow
    it."""
    spec = resource.spec
    capacity, levels = effective_cache(spec, tuning)
    return ServingConfig(
        name=resource.metadata.name,
        data_dir=host.data_dir,
        model=ModelConfig(
            source=spec.model.source,
            revision=spec.model.revision or "",
            ca_file=_secret(spec.model.ca_secret_ref, MODEL_CA, host),
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
            store=_store_config(resource, host),
            ledger=_ledger_config(resource, host),
        ),
        index=_index_config(spec.index, host),
        listen=host.listen,
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
    """Returns the capacity in bytes and the levels: the tuner's where its record has them, else the spec's. Levels are
    None if the model's own hold."""
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


def _store_config(resource: DiffusionCache, host: Host) -> StoreConfig:
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
        ca_file=_secret(s3.ca_secret_ref, STORE_CA, host),
    )


def _ledger_config(resource: DiffusionCache, host: Host) -> LedgerConfig:
    ledger, external = resource.spec.cache.ledger, resource.spec.cache.ledger.external
    if ledger.type is LedgerType.EMBEDDED:
        return LedgerConfig()
    prefix = f"{resource.metadata.namespace}/{resource.metadata.name}"
    if external is None:
        return LedgerConfig(address=host.provisioned_ledger, prefix=prefix)
    return LedgerConfig(
        prefix=prefix,
        address=external.address,
        password_file=_secret(external.password_secret_ref, LEDGER_PASSWORD, host),
        ca_file=_secret(external.ca_secret_ref, LEDGER_CA, host),
    )


def _quality_config(spec: DiffusionCacheSpec) -> QualityConfig:
    quality = spec.tuning.quality
    if spec.tuning.mode is TuningMode.DISABLED:
        return QualityConfig()
    scorer = quality.scorer or BUNDLED_SCORERS.get(spec.model.source, "")
    return QualityConfig(shadow_percent=quality.shadow_percent, scorer=scorer)


def _index_config(index: IndexSpec, host: Host) -> IndexConfig:
    external = index.external
    if external is None:
        uri = host.standalone_uri if index.type is IndexType.STANDALONE else ""
        return IndexConfig(type=index.type.value, uri=uri)
    uri, database = split_uri(external.uri)
    return IndexConfig(
        type=index.type.value,
        uri=uri,
        database=external.database or database,
        token_file=_secret(external.token_secret_ref, INDEX_TOKEN, host),
        ca_file=_secret(external.ca_secret_ref, INDEX_CA, host),
    )


def _secret(reference: SecretKeyRef | None, name: str, host: Host) -> Path | None:
    return host.secrets_dir / name if host.secrets_dir is not None and reference is not None else None
