"""The `DiffusionCache` resource: the one source of the manifest's rules and of the CRD.

Only fields that work are here; every other key is refused by name. Sizes are Kubernetes quantities, similarities and
other fractions decimal strings, percentages integers. A default stands here only if it depends on neither model,
cluster nor version: a default of the schema is written into every stored object and cannot be changed any more.
"""

from __future__ import annotations

from diffcache_core.spec.cache import (
    CacheSpec,
    ExternalLedgerSpec,
    LedgerSpec,
    LedgerType,
    LedgerVolumeSpec,
    LevelSpec,
    ProvisionedLedgerSpec,
    S3Spec,
    Scope,
    StoreSpec,
    StoreType,
)
from diffcache_core.spec.index import ExternalIndexSpec, IndexSpec, IndexType, StandaloneIndexSpec, split_uri
from diffcache_core.spec.model import SCHEDULERS, DType, Guidance, ModelSpec, Scheduler, SourceKind
from diffcache_core.spec.resource import (
    NAME_ADVICE,
    NAME_PATTERN,
    DiffusionCache,
    DiffusionCacheSpec,
    Metadata,
    ReclaimPolicy,
    is_shared,
)
from diffcache_core.spec.serving import MAX_REPLICAS, BatchSpec, GpuSpec, QueueSpec, ServingSpec
from diffcache_core.spec.tuning import (
    AutoscalingSpec,
    CapacityTuningSpec,
    LatencySpec,
    PrometheusHeader,
    PrometheusSpec,
    QualitySpec,
    ScalingMode,
    TuningMode,
    TuningSpec,
)
from diffcache_core.spec.values import (
    Quantity,
    QuantityText,
    ResourceList,
    ResourceQuantity,
    Resources,
    Similarity,
    VolumeSpec,
)

__all__ = [
    "MAX_REPLICAS",
    "NAME_ADVICE",
    "NAME_PATTERN",
    "SCHEDULERS",
    "AutoscalingSpec",
    "BatchSpec",
    "CacheSpec",
    "CapacityTuningSpec",
    "DType",
    "DiffusionCache",
    "DiffusionCacheSpec",
    "ExternalIndexSpec",
    "ExternalLedgerSpec",
    "GpuSpec",
    "Guidance",
    "IndexSpec",
    "IndexType",
    "LatencySpec",
    "LedgerSpec",
    "LedgerType",
    "LedgerVolumeSpec",
    "LevelSpec",
    "Metadata",
    "ModelSpec",
    "PrometheusHeader",
    "PrometheusSpec",
    "ProvisionedLedgerSpec",
    "QualitySpec",
    "Quantity",
    "QuantityText",
    "QueueSpec",
    "ReclaimPolicy",
    "ResourceList",
    "ResourceQuantity",
    "Resources",
    "S3Spec",
    "ScalingMode",
    "Scheduler",
    "Scope",
    "ServingSpec",
    "Similarity",
    "SourceKind",
    "StandaloneIndexSpec",
    "StoreSpec",
    "StoreType",
    "TuningMode",
    "TuningSpec",
    "VolumeSpec",
    "is_shared",
    "split_uri",
]
