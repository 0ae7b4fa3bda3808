"""The whole resource, and the rules that hold between its parts."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict

from diffcache_core.choices import StoreType
from diffcache_core.quantities import bytes_of
from diffcache_core.resource.rules import Block, Change, Rule
from diffcache_core.resource.spec.cache import CacheSpec, LedgerType
from diffcache_core.resource.spec.index import IndexSpec, IndexType
from diffcache_core.resource.spec.model import ModelSpec
from diffcache_core.resource.spec.serving import ServingSpec
from diffcache_core.resource.spec.tuning import AutoscalingSpec, PrometheusSpec, TuningSpec


class ReclaimPolicy(StrEnum):
    DELETE = "Delete"  # the volumes are deleted with the resource
    RETAIN = "Retain"


def is_shared(spec: DiffusionCacheSpec) -> bool:
    """Returns whether several replicas can share the cache: index, ledger and store lie outside the pods. These fields
    are immutable."""
    return (
        spec.index.type is not IndexType.LITE
        and spec.cache.ledger.type is not LedgerType.EMBEDDED
        and spec.cache.store.type is StoreType.S3
    )


_SHARED = "self.index.type != 'Lite' && self.cache.ledger.type != 'Embedded' && self.cache.store.type == 'S3'"

_SHARE = (
    "needs a cache that replicas can share: set index.type Standalone or External, cache.ledger.type Provisioned or "
    "External, and cache.store.type S3"
)


class DiffusionCacheSpec(Block):
    """The desired state."""

    model: ModelSpec
    serving: ServingSpec = ServingSpec()
    cache: CacheSpec = CacheSpec()
    index: IndexSpec = IndexSpec()
    prometheus: PrometheusSpec = PrometheusSpec()
    tuning: TuningSpec = TuningSpec()
    autoscaling: AutoscalingSpec = AutoscalingSpec()
    reclaim_policy: Annotated[ReclaimPolicy, Change.HOT] = ReclaimPolicy.DELETE
    """Whether the volumes are deleted with the resource (Delete) or stay (Retain)."""
    rules = (
        Rule(
            f"self.serving.replicas <= 1 || {_SHARED}",
            f"serving.replicas above 1 {_SHARE}",
            lambda spec: spec.serving.replicas <= 1 or is_shared(spec),
        ),
        Rule(
            f"!has(self.autoscaling.maxReplicas) || self.autoscaling.maxReplicas <= 1 || {_SHARED}",
            f"autoscaling.maxReplicas above 1 {_SHARE}",
            lambda spec: (spec.autoscaling.max_replicas or 1) <= 1 or is_shared(spec),
        ),
        Rule(
            "!has(self.tuning.quality.scorer) || !self.tuning.quality.scorer.startsWith('pvc://') || "
            "self.model.source.startsWith('pvc://') && "
            "self.tuning.quality.scorer.split('/')[2] == self.model.source.split('/')[2]",
            "tuning.quality.scorer pvc:// must lie on the claim that holds the model: no other is mounted",
            lambda spec: (
                not (spec.tuning.quality.scorer or "").startswith("pvc://")
                or spec.model.source.split("/")[:3] == spec.tuning.quality.scorer.split("/")[:3]
            ),
        ),
        Rule(
            "!has(self.tuning.capacity) || self.cache.store.type != 'Volume' || "
            "!isQuantity(self.tuning.capacity.max) || !isQuantity(self.cache.store.volume.size) || "
            "quantity(self.tuning.capacity.max).isLessThan(quantity(self.cache.store.volume.size))",
            "tuning.capacity.max must be below cache.store.volume.size: the volume holds the ledger, the index and the "
            "model, too",
            lambda spec: (
                spec.tuning.capacity is None
                or spec.cache.store.type is not StoreType.VOLUME
                or bytes_of(spec.tuning.capacity.max) < bytes_of(spec.cache.store.volume.size)
            ),
        ),
    )


NAME_PATTERN = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"

NAME_ADVICE = "must be at most 40 lower-case letters, digits and dashes, and begin with a letter"


class Metadata(BaseModel):
    """The metadata fields that diffcache uses; Kubernetes has many more."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    name: Annotated[str, Rule("", NAME_ADVICE, lambda name: re.fullmatch(NAME_PATTERN, name) is not None)]
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    annotations: dict[str, str] = {}


class DiffusionCache(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    apiVersion: Literal["diffcache.io/v1alpha1"]
    kind: Literal["DiffusionCache"]
    metadata: Metadata
    spec: DiffusionCacheSpec
