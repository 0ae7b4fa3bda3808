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
from diffcache_core.pod import PodOptions, SecretKeyRef, Text
from diffcache_core.quantities import MEBIBYTE, QUANTITY_PATTERN, bytes_of
from diffcache_core.rules import Block, Change, Rule, UniqueBy
from diffcache_core.states import StateKind

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


ResourceQuantity = Annotated[StrictInt | str, Field(json_schema_extra={"maxLength": 32})]
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
        Field(ge=0),
        Rule(
            "self <= 1",
            "must be 0 or 1: replicas cannot share a cache in this version; use more DiffusionCaches",
            lambda replicas: replicas <= 1,
        ),
        Change.HOT,
    ] = 1
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


class StoreSpec(Block):
    type: Annotated[Literal["Volume"], Change.IMMUTABLE] = "Volume"
    """Where states are kept: on a volume of the pod."""
    volume: VolumeSpec = VolumeSpec()


class CacheSpec(Block):
    capacity: Annotated[Quantity, Change.HOT] = "64Mi"
    """Bytes that states may take."""
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
    rules = (
        Rule(
            "!isQuantity(self.capacity) || !isQuantity(self.store.volume.size) || "
            "quantity(self.capacity).isLessThan(quantity(self.store.volume.size))",
            "capacity must be below store.volume.size: the volume holds the ledger, the index and the model, too",
            lambda cache: bytes_of(cache.capacity) < bytes_of(cache.store.volume.size),
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


class DiffusionCacheSpec(Block):
    model: ModelSpec
    serving: ServingSpec = ServingSpec()
    cache: CacheSpec = CacheSpec()
    index: IndexSpec = IndexSpec()
    reclaim_policy: Annotated[ReclaimPolicy, Change.HOT] = ReclaimPolicy.DELETE
    """Whether the volumes are deleted with the resource."""


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
