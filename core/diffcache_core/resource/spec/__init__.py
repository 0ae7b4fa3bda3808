"""The `DiffusionCache` resource: the only source of the manifest's rules and of the CRD.

It only has fields that have an effect; every other key is refused by name. Sizes are Kubernetes quantities;
similarities and other fractions are decimal strings; percentages are integers. A field only has a default here if it
does not depend on model, cluster or version: the API server writes a schema's default into every stored object, so it
cannot be changed later.
"""

from __future__ import annotations

from diffcache_core.resource.spec.cache import (
    CacheSpec,
    ExternalLedgerSpec,
    LedgerSpec,
    LedgerType,
    LedgerVolumeSpec,
    LevelSpec,
    ProvisionedLedgerSpec,
    S3Spec,
    StoreSpec,
)
from diffcache_core.resource.spec.index import ExternalIndexSpec, IndexSpec, IndexType, StandaloneIndexSpec, split_uri
from diffcache_core.resource.spec.model import Guidance, ModelSpec
from diffcache_core.resource.spec.resource import (
    NAME_ADVICE,
    NAME_PATTERN,
    DiffusionCache,
    DiffusionCacheSpec,
    Metadata,
    ReclaimPolicy,
    is_shared,
)
from diffcache_core.resource.spec.serving import MAX_REPLICAS, BatchSpec, GpuSpec, QueueSpec, ServingSpec
from diffcache_core.resource.spec.tuning import (
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
from diffcache_core.resource.spec.values import (
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
    "AutoscalingSpec",
    "BatchSpec",
    "CacheSpec",
    "CapacityTuningSpec",
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
    "ServingSpec",
    "Similarity",
    "StandaloneIndexSpec",
    "StoreSpec",
    "TuningMode",
    "TuningSpec",
    "VolumeSpec",
    "is_shared",
    "split_uri",
]
