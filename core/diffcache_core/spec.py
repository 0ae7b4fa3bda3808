"""The `DiffusionCache` resource: the one source of the manifest's rules and of the CRD.

Only fields that work are here; every other key is refused by name. Sizes are Kubernetes quantities, similarities and
other fractions decimal strings, percentages integers. A default stands here only if it depends on neither model,
cluster nor version: a default of the schema is written into every stored object and cannot be changed any more.
"""

from __future__ import annotations

import itertools
import re
from enum import StrEnum
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StrictInt

from diffcache_core.generation import MAX_SIDE, MAX_STEPS
from diffcache_core.pod import LocalObjectRef, PodOptions, SecretKeyRef, Text
from diffcache_core.quantities import MEBIBYTE, QUANTITY_PATTERN, amount_of, bytes_of
from diffcache_core.rules import Block, Change, Rule, UniqueBy
from diffcache_core.states import StateKind

MAX_REPLICAS = 64
"""Pods of one cache: as many as were simulated; a Redis holds out against many more."""

_HUB_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+$"

QuantityText = Annotated[
    str,
    Field(max_length=32),
    Rule.matches(QUANTITY_PATTERN, "must be a quantity such as 64Mi or 2Gi"),
]
Quantity = Annotated[
    QuantityText,
    Rule(
        "!isQuantity(self) || quantity(self).compareTo(quantity('1Mi')) >= 0",
        "must be at least 1Mi",
        lambda text: bytes_of(text) >= MEBIBYTE,
    ),
]
Similarity = Annotated[
    str,
    Field(max_length=16),
    Rule.matches(r"^(0(\.[0-9]+)?|1(\.0+)?)$", 'must be a decimal from 0 to 1 in quotes, such as "0.8"'),
]
Guidance = Annotated[
    str,
    Field(max_length=16),
    Rule.matches(
        r"^(([0-9]|[1-4][0-9])(\.[0-9]+)?|50(\.0+)?)$", 'must be a decimal from 0 to 50 in quotes, such as "7.5"'
    ),
]
Scheduler = Literal["DDIM", "Euler", "DPM++2M"]
SCHEDULERS: tuple[str, ...] = get_args(Scheduler)


class DType(StrEnum):
    AUTO = "Auto"  # float16 on CUDA, float32 on a CPU
    FLOAT16 = "Float16"
    BFLOAT16 = "BFloat16"
    FLOAT32 = "Float32"


class Scope(StrEnum):
    TENANT = "Tenant"  # a tenant never resumes from another one's states
    SHARED = "Shared"


class IndexType(StrEnum):
    LITE = "Lite"  # Milvus Lite, embedded in the pod
    STANDALONE = "Standalone"  # a Milvus of its own beside the pods
    EXTERNAL = "External"  # a Milvus that somebody else runs


class StoreType(StrEnum):
    VOLUME = "Volume"  # on a volume of the pod
    S3 = "S3"  # in a bucket that several pods share


class LedgerType(StrEnum):
    EMBEDDED = "Embedded"  # SQLite on the pod's volume
    PROVISIONED = "Provisioned"  # a Redis of its own beside the pods
    EXTERNAL = "External"  # a Redis or Valkey that somebody else runs


class TuningMode(StrEnum):
    DISABLED = "Disabled"
    RECOMMEND = "Recommend"  # decisions are told in status, and not carried out
    AUTO = "Auto"


class ScalingMode(StrEnum):
    DISABLED = "Disabled"  # serving.replicas is whoever's who writes it: you, an HPA, KEDA
    OPERATOR = "Operator"  # the operator's own loop writes it


class ReclaimPolicy(StrEnum):
    DELETE = "Delete"  # the volumes go with the resource
    RETAIN = "Retain"


class SourceKind(StrEnum):
    """Where a model comes from, by the form of `spec.model.source`."""

    BUNDLED = "bundled"
    FILE = "file"
    PVC = "pvc"
    HUB = "hub"

    @classmethod
    def of(cls, source: str) -> SourceKind:
        scheme, separator, _ = source.partition("://")
        return cls(scheme) if separator else cls.HUB


def _is_hub_id(source: str) -> bool:
    return SourceKind.of(source) is SourceKind.HUB


class ModelSpec(Block):
    source: Annotated[
        str,
        Field(max_length=512),
        Rule.matches(
            rf"^(bundled://[a-z0-9-]+|file://.+|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/.+)?)$|{_HUB_PATTERN}",
            "must be bundled://emoji, a Hugging Face id such as stable-diffusion-v1-5/stable-diffusion-v1-5, "
            "pvc://CLAIM/FOLDER, or file:// and the path of a diffusers folder",
        ),
        Change.NEW_SPACE,
    ]
    """bundled://NAME, a Hugging Face id, pvc://CLAIM/FOLDER, or file://FOLDER in the image."""
    revision: (
        Annotated[
            str,
            Field(max_length=100),
            Rule.matches(r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", "must be a branch, a tag or a commit"),
            Change.NEW_SPACE,
        ]
        | None
    ) = None
    """Branch, tag or commit of a Hugging Face id; absent: main."""
    token_secret_ref: Annotated[SecretKeyRef, Change.ROLL] | None = None
    """Token for a gated Hugging Face id. Only the init container that downloads the model sees it."""
    scheduler: Annotated[Scheduler, Change.NEW_SPACE] = "DDIM"
    dtype: Annotated[DType, Change.NEW_SPACE] = DType.AUTO
    """Auto is Float16 on CUDA and Float32 on a CPU."""
    steps: Annotated[StrictInt, Field(ge=1, le=MAX_STEPS), Change.HOT] | None = None
    """Denoising steps of a request that names none; absent: 50."""
    guidance: Annotated[Guidance, Change.HOT] | None = None
    """Guidance scale of a request that names none; absent: 7.5."""
    width: Annotated[StrictInt, Field(ge=8, le=MAX_SIDE, multiple_of=8), Change.HOT] | None = None
    """Pixels of a request that names none; absent: the model's own size."""
    height: Annotated[StrictInt, Field(ge=8, le=MAX_SIDE, multiple_of=8), Change.HOT] | None = None
    """Pixels of a request that names none; absent: the model's own size."""
    rules = (
        Rule(
            f"!has(self.revision) && !has(self.tokenSecretRef) || self.source.matches('{_HUB_PATTERN}')",
            "revision and tokenSecretRef belong to a Hugging Face id: remove them for any other source",
            lambda model: (model.revision is None and model.token_secret_ref is None) or _is_hub_id(model.source),
        ),
    )


class GpuSpec(Block):
    count: Annotated[StrictInt, Field(ge=0, le=16), Change.ROLL] = 0
    """GPUs of a pod. Above 0 CUDA is mandatory: a pod without it ends with the reason instead of using the CPU."""
    resource_name: Annotated[
        str,
        Field(max_length=253),
        Rule.matches(r"^[a-z0-9.-]+/[a-z0-9A-Z._-]+$", "must be a resource such as nvidia.com/gpu"),
        Change.ROLL,
    ] = "nvidia.com/gpu"
    """The device plug-in's resource; for a MIG slice such as nvidia.com/mig-1g.10gb."""


ResourceQuantity = Annotated[
    StrictInt | str,
    Field(json_schema_extra={"maxLength": 32}),
    Rule(
        "type(self) == int || isQuantity(string(self))",
        "must be an amount such as 2, 500m or 4Gi",
        lambda amount: isinstance(amount, int) or not isinstance(amount_of(amount), str),
    ),
]
ResourceList = Annotated[dict[str, ResourceQuantity], Field(max_length=16)]


class Resources(Block):
    requests: ResourceList | None = None
    limits: ResourceList | None = None


class BatchSpec(Block):
    max_size: Annotated[StrictInt, Field(ge=1, le=64), Change.HOT] = 8
    """Requests that may share one denoiser call."""


class QueueSpec(Block):
    max_steps: Annotated[StrictInt, Field(ge=1, le=10**6), Change.HOT] = 4000
    """Denoising steps queued and running; a request beyond it gets RESOURCE_EXHAUSTED."""


class ServingSpec(Block):
    replicas: Annotated[
        StrictInt,
        Field(ge=0, le=MAX_REPLICAS),
        Change.HOT,
    ] = 1
    """More than 1 needs what replicas can share: an index, a ledger and a store outside of the pods."""
    image: Annotated[Text, Field(min_length=1), Change.ROLL] | None = None
    """Absent: the one recorded in status.serving.image, which is the operator's default of the first reconcile."""
    gpu: GpuSpec = GpuSpec()
    resources: Annotated[Resources, Change.ROLL] = Resources()
    """Requests and limits of the serving container; GPUs go into `gpu`."""
    batch: BatchSpec = BatchSpec()
    queue: QueueSpec = QueueSpec()
    pod: Annotated[PodOptions, Change.ROLL] = PodOptions()


class LevelSpec(Block):
    skip_percent: Annotated[StrictInt, Field(ge=1, le=99)]
    """Share of the steps that may be skipped."""
    similarity: Similarity
    """From this cosine similarity on."""


_RISING = (
    "from each level to the next higher skipPercent the similarity must not fall: a larger skip needs a closer prompt"
)


def _levels_rise(levels: list[Any]) -> bool:
    rising = sorted(levels, key=lambda level: level.skip_percent)
    return all(float(low.similarity) <= float(high.similarity) for low, high in itertools.pairwise(rising))


class VolumeSpec(Block):
    size: Annotated[Quantity, Change.IMMUTABLE] = "10Gi"
    storage_class_name: Annotated[Text, Change.IMMUTABLE] | None = None
    """Absent: the cluster's default StorageClass."""


class S3Spec(Block):
    bucket: Annotated[
        str,
        Field(max_length=63),
        Rule.matches(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", "must be the name of a bucket, such as my-states"),
        Change.IMMUTABLE,
    ]
    prefix: Annotated[
        str,
        Field(max_length=256),
        Rule.matches(r"^([A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*)?$", "must be a path without slashes at its ends"),
        Change.IMMUTABLE,
    ] = ""
    """Below it states lie in a folder of the cache's own."""
    endpoint: (
        Annotated[
            str,
            Field(max_length=512),
            Rule.matches(r"^https?://[^\s/]+$", "must be the address of an S3 service, such as http://minio:9000"),
            Change.ROLL,
        ]
        | None
    ) = None
    """Absent: Amazon's of the region."""
    region: Annotated[str, Field(min_length=1, max_length=64), Change.ROLL] = "us-east-1"
    credentials_secret_ref: Annotated[LocalObjectRef, Change.ROLL] | None = None
    """A Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; absent: what the pod's surroundings give it."""


class StoreSpec(Block):
    type: Annotated[StoreType, Change.IMMUTABLE] = StoreType.VOLUME
    """Where states are kept."""
    volume: VolumeSpec = VolumeSpec()
    """Of each pod: for states (Volume), the ledger (Embedded), the index (Lite) and downloaded models."""
    s3: S3Spec | None = None
    rules = (
        Rule(
            "has(self.s3) == (self.type == 'S3')",
            "set s3: {bucket: NAME} exactly when type is S3",
            lambda store: (store.s3 is not None) == (store.type is StoreType.S3),
        ),
    )


class LedgerVolumeSpec(VolumeSpec):
    size: Annotated[Quantity, Change.IMMUTABLE] = "1Gi"


class ProvisionedLedgerSpec(Block):
    image: Annotated[Text, Field(min_length=1), Change.ROLL] | None = None
    """Absent: the running one, at first the operator's default."""
    resources: Annotated[Resources, Change.ROLL] = Resources()
    volume: LedgerVolumeSpec = LedgerVolumeSpec()


class ExternalLedgerSpec(Block):
    address: Annotated[
        str,
        Field(max_length=512),
        Rule.matches(
            r"^rediss?://[^\s/]+(/[0-9]{1,3})?$", "must be the address of a Redis or Valkey, such as redis://redis:6379"
        ),
        Change.ROLL,
    ]
    """redis://HOST:PORT/DATABASE, or rediss:// for TLS."""
    password_secret_ref: Annotated[SecretKeyRef, Change.ROLL] | None = None
    ca_secret_ref: Annotated[SecretKeyRef, Change.ROLL] | None = None
    """PEM certificates that the server's one is checked against."""
    rules = (
        Rule(
            "!has(self.caSecretRef) || self.address.startsWith('rediss://')",
            "caSecretRef needs an address that begins with rediss://",
            lambda external: external.ca_secret_ref is None or external.address.startswith("rediss://"),
        ),
    )


class LedgerSpec(Block):
    type: Annotated[LedgerType, Change.IMMUTABLE] = LedgerType.EMBEDDED
    """Who keeps the record of entries and states."""
    provisioned: ProvisionedLedgerSpec | None = None
    external: ExternalLedgerSpec | None = None
    rules = (
        Rule(
            "has(self.provisioned) == (self.type == 'Provisioned')",
            "set provisioned: {} exactly when type is Provisioned",
            lambda ledger: (ledger.provisioned is not None) == (ledger.type is LedgerType.PROVISIONED),
        ),
        Rule(
            "has(self.external) == (self.type == 'External')",
            "set external: {address: redis://HOST:PORT} exactly when type is External",
            lambda ledger: (ledger.external is not None) == (ledger.type is LedgerType.EXTERNAL),
        ),
    )


class CacheSpec(Block):
    capacity: Annotated[Quantity, Change.HOT] = "64Mi"
    """Bytes that states may take, over all replicas."""
    state: Annotated[StateKind, Change.NEW_SPACE] = StateKind.CLEAN
    """Clean keeps the final latent, Trajectory those of several steps."""
    levels: (
        Annotated[
            list[LevelSpec],
            Field(max_length=20),
            UniqueBy("skipPercent"),
            Rule(
                "self.all(a, self.all(b, a.skipPercent <= b.skipPercent || "
                "double(a.similarity) >= double(b.similarity)))",
                _RISING,
                _levels_rise,
            ),
            Change.HOT,
        ]
        | None
    ) = None
    """The threshold table; absent: the model's own. An empty list: nothing is ever resumed."""
    scope: Annotated[Scope, Change.IMMUTABLE] = Scope.TENANT
    """Shared lets tenants resume from each other's states."""
    space_grace_seconds: Annotated[StrictInt, Field(ge=0, le=30 * 24 * 3600), Change.HOT] = 3600
    """How long the entries of an earlier model, scheduler, dtype or kind of state are kept for a change back."""
    store: StoreSpec = StoreSpec()
    ledger: LedgerSpec = LedgerSpec()
    rules = (
        Rule(
            "self.store.type != 'Volume' || !isQuantity(self.capacity) || !isQuantity(self.store.volume.size) || "
            "quantity(self.capacity).isLessThan(quantity(self.store.volume.size))",
            "capacity must be below store.volume.size: the volume holds the ledger, the index and the model, too",
            lambda cache: (
                cache.store.type is not StoreType.VOLUME or bytes_of(cache.capacity) < bytes_of(cache.store.volume.size)
            ),
        ),
    )


class StandaloneIndexSpec(Block):
    image: Annotated[Text, Field(min_length=1), Change.ROLL] | None = None
    """Absent: the running one, at first the operator's default."""
    resources: Annotated[Resources, Change.ROLL] = Resources()
    volume: VolumeSpec = VolumeSpec()


class ExternalIndexSpec(Block):
    uri: Annotated[
        str,
        Field(max_length=512),
        Rule.matches(r"^https?://[^\s/]+$", "must be the address of a Milvus, such as http://milvus:19530"),
        Change.ROLL,
    ]
    token_secret_ref: Annotated[SecretKeyRef, Change.ROLL] | None = None
    """user:password or an API key."""
    ca_secret_ref: Annotated[SecretKeyRef, Change.ROLL] | None = None
    """PEM certificates that the server's one is checked against."""
    rules = (
        Rule(
            "!has(self.caSecretRef) || self.uri.startsWith('https://')",
            "caSecretRef needs a uri that begins with https://",
            lambda external: external.ca_secret_ref is None or external.uri.startswith("https://"),
        ),
    )


class IndexSpec(Block):
    type: Annotated[IndexType, Change.IMMUTABLE] = IndexType.LITE
    standalone: StandaloneIndexSpec | None = None
    external: ExternalIndexSpec | None = None
    rules = (
        Rule(
            "has(self.external) == (self.type == 'External')",
            "set external: {uri: http://HOST:PORT} exactly when type is External",
            lambda index: (index.external is not None) == (index.type is IndexType.EXTERNAL),
        ),
        Rule(
            "has(self.standalone) == (self.type == 'Standalone')",
            "set standalone: {} exactly when type is Standalone",
            lambda index: (index.standalone is not None) == (index.type is IndexType.STANDALONE),
        ),
    )


class PrometheusSpec(Block):
    url: (
        Annotated[
            str,
            Field(max_length=512),
            Rule.matches(r"^https?://[^\s]+$", "must be the address of a Prometheus, such as http://prometheus:9090"),
            Change.HOT,
        ]
        | None
    ) = None
    """Of the Prometheus that scrapes the pods; absent: the operator's."""


class QualitySpec(Block):
    target_percent: Annotated[StrictInt, Field(ge=50, le=100), Change.HOT] = 95
    """What the mean quality of resumed pictures must reach, as a share of that of pictures drawn without the cache."""
    shadow_percent: Annotated[StrictInt, Field(ge=0, le=20), Change.HOT] = 2
    """Share of the steps that comparisons may cost: the same request again, with and without the cache."""
    scorer: (
        Annotated[
            str,
            Field(max_length=512),
            Rule.matches(
                r"^(bundled://[a-z0-9-]+|file://.+|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/.+)?)$",
                "must be bundled://emoji-clip, file:// and the path of a CLIPModel's folder, or pvc://CLAIM/FOLDER "
                "of the claim that holds the model",
            ),
            Change.ROLL,
        ]
        | None
    ) = None
    """The CLIPModel that judges pictures; absent: the bundled model's own, and none for any other model."""


class LatencySpec(Block):
    p95_milliseconds: Annotated[StrictInt, Field(ge=1, le=10**7), Change.HOT]
    """Objective for the 95th percentile of a request's duration."""


class CapacityTuningSpec(Block):
    min: Annotated[Quantity, Change.HOT]
    """The least that the tuner may set the capacity to."""
    max: Annotated[Quantity, Change.HOT]
    """The most that the tuner may set the capacity to: what you are willing to pay for."""
    min_gain: Annotated[Similarity, Change.HOT] = "0.02"
    """Capacity is worth doubling as long as the steps saved ratio rises by at least so much."""
    rules = (
        Rule(
            "!isQuantity(self.min) || !isQuantity(self.max) || quantity(self.min).compareTo(quantity(self.max)) <= 0",
            "min must not be above max",
            lambda capacity: bytes_of(capacity.min) <= bytes_of(capacity.max),
        ),
    )


class TuningSpec(Block):
    mode: Annotated[TuningMode, Change.HOT] = TuningMode.DISABLED
    """Recommend tells in status what it would do; Auto does it."""
    quality: QualitySpec = QualitySpec()
    latency: LatencySpec | None = None
    """With it levels are no looser than it needs; without, as loose as the quality's bound allows."""
    capacity: CapacityTuningSpec | None = None
    """Absent: the capacity stays."""
    min_similarity: Annotated[Similarity, Change.HOT] | None = None
    """No level is ever tuned to ask for less."""


class AutoscalingSpec(Block):
    mode: Annotated[ScalingMode, Change.HOT] = ScalingMode.DISABLED
    min_replicas: Annotated[StrictInt, Field(ge=1, le=MAX_REPLICAS), Change.HOT] = 1
    """The fewest pods that the operator goes down to."""
    max_replicas: Annotated[StrictInt, Field(ge=1, le=MAX_REPLICAS), Change.HOT] | None = None
    """The most pods: what you are willing to pay for."""
    target_backlog_seconds: Annotated[StrictInt, Field(ge=1, le=3600), Change.HOT] = 10
    """Work that may wait for a pod: steps left to run times seconds a step."""
    scale_down_stabilization_seconds: Annotated[StrictInt, Field(ge=0, le=3600), Change.HOT] = 300
    """For so long fewer replicas must have sufficed before there are fewer."""
    rules = (
        Rule(
            "self.mode != 'Operator' || has(self.maxReplicas)",
            "mode Operator needs maxReplicas: how many pods you are willing to pay for",
            lambda scaling: scaling.mode is not ScalingMode.OPERATOR or scaling.max_replicas is not None,
        ),
        Rule(
            "!has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
            "minReplicas must not be above maxReplicas",
            lambda scaling: scaling.max_replicas is None or scaling.min_replicas <= scaling.max_replicas,
        ),
    )


def is_shared(spec: DiffusionCacheSpec) -> bool:
    """Whether several replicas may use the cache: its parts lie outside of the pods. None of it can be changed."""
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
    model: ModelSpec
    serving: ServingSpec = ServingSpec()
    cache: CacheSpec = CacheSpec()
    index: IndexSpec = IndexSpec()
    prometheus: PrometheusSpec = PrometheusSpec()
    tuning: TuningSpec = TuningSpec()
    autoscaling: AutoscalingSpec = AutoscalingSpec()
    reclaim_policy: Annotated[ReclaimPolicy, Change.HOT] = ReclaimPolicy.DELETE
    """Whether the volumes are deleted with the resource."""
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
NAME_ADVICE = "metadata.name must be at most 40 lower-case letters, digits and dashes, and begin with a letter"


class Metadata(BaseModel):
    """Kubernetes knows many more metadata fields; these concern us."""

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
