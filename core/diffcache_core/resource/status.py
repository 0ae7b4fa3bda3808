"""The resource's status: what the operator tells, in the shapes of Kubernetes' API conventions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from diffcache_core.resource.rules import LIST_TYPE


class _Block(BaseModel):
    # A status written by another version of the operator must not stop this one, so unknown keys are ignored.
    model_config = ConfigDict(
        extra="ignore",
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )


class Condition(_Block):
    """metav1.Condition."""

    type: Annotated[str, Field(max_length=316)]
    """What the condition is about, such as Ready."""
    status: Literal["True", "False", "Unknown"]
    """Whether it is so."""
    reason: Annotated[str, Field(max_length=1024)]
    """One CamelCase word."""
    message: Annotated[str, Field(max_length=32768)]
    """What is the matter, and what to do about it."""
    observed_generation: int
    """The generation of the resource that it is about."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """Since when `status` has been so."""


class ServingStatus(_Block):
    """Images of the serving pods."""

    image: str = ""
    """The serving image that a pod was ready with last. Unless spec.serving.image names another, it is used again, and
    an upgrade of the operator leaves it."""
    chosen: str = ""
    """The last image that `kubectl diffcache upgrade` chose and that a pod was ready with."""
    available: str = ""
    """The operator's default image, if it is another: `kubectl diffcache upgrade` takes it."""


class IndexStatus(_Block):
    """The index, as far as it was seen."""

    image: str = ""
    """The image of Milvus that its pod was ready with last, where the resource has one of its own."""
    reached: bool = False
    """Whether a pod has ever reached the index."""


class LedgerStatus(_Block):
    """The ledger, as far as it was seen."""

    image: str = ""
    """The image of Redis that its pod was ready with last, where the resource has one of its own."""
    reached: bool = False
    """Whether a pod has ever reached the ledger."""


class StoreStatus(_Block):
    """The store, as far as it was seen."""

    reached: bool = False
    """Whether a pod has ever reached the bucket."""


class CacheStatus(_Block):
    """Figures of the running pods, written at most once a minute."""

    steps_saved_ratio: str = ""
    """Skipped steps over all steps since the pods started; the share of the denoising work that the cache saved."""
    hit_ratio: str = ""
    """Requests answered EXACT or APPROXIMATE over all that may read the cache."""
    entries: int = 0
    """Generations that can be resumed from."""
    bytes: int = 0
    """Bytes that their states take."""


class LevelStatus(_Block):
    """From which similarity on how much may be skipped."""

    skip_percent: int
    """Share of the steps that may be skipped."""
    similarity: str
    """From this cosine similarity on."""


class TuningDecision(_Block):
    """What the tuner decided, and from what."""

    time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When it was decided."""
    revision: int
    """The revision that it led to."""
    reason: str
    """One CamelCase word: Loosened, Tightened, Grown, Shrunk, Reset."""
    message: Annotated[str, Field(max_length=1024)]
    """Why, for a person."""
    capacity: str
    """The capacity from then on."""
    levels: Annotated[list[LevelStatus], Field(max_length=20)] = []
    """The levels from then on."""
    inputs: dict[str, str] = {}
    """The figures that it rests on, by name."""


class TuningStatus(_Block):
    """The tuner's record: what is in force instead of the spec's values while tuning.mode is Auto."""

    revision: int = 0
    """Rises with each decision; the pods export the one they follow."""
    based_on: str = ""
    """Digest of the spec's cache and tuning parts: another one sets the record back to the spec."""
    capacity: str = ""
    """The capacity in force."""
    levels: Annotated[list[LevelStatus], Field(max_length=20)] = []
    """The levels in force."""
    window_start: str = ""
    """Since when all ready pods have followed this revision: earlier figures do not count. Empty: not yet."""
    measured_of: str = ""
    """Digest of the model, the kind of state and the scorer that comparisons are of."""
    measured_since: str = ""
    """Since when comparisons count, which decisions do not change: since all ready pods have followed this spec."""
    pods: int = 0
    """Serving pods that there have been at once meanwhile: series of a pod with a higher number do not count."""
    decision: str = ""
    """What the tuner did last, or why it does nothing: for a column of `kubectl get`."""
    history: Annotated[list[TuningDecision], Field(max_length=10)] = []
    """The last ten decisions, newest first."""


class AutoscalingStatus(_Block):
    """What the operator's scaling loop did last."""

    replicas: int = 0
    """The number of pods that it set."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Why, for a person."""
    time: str = ""
    """When it did."""


class CorrectionStatus(_Block):
    """What somebody had changed by hand and the operator put right last."""

    message: Annotated[str, Field(max_length=1024)] = ""
    """Which object was changed, in which field, and by whom."""
    time: str = ""
    """When it was put right."""


class DiffusionCacheStatus(_Block):
    """What there is."""

    observed_generation: int = -1
    """The generation that this status is about; -1: no operator has looked at the resource yet."""
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            json_schema_extra={LIST_TYPE: "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = []
    """What is the matter: Ready, and what stands behind it."""
    replicas: int = 0
    """Pods there are, ready or not."""
    ready_replicas: int = 0
    """Pods that answer."""
    selector: str = ""
    """Label selector of the serving pods, for autoscalers."""
    endpoint: str = ""
    """Where clients inside the cluster connect to."""
    serving: ServingStatus = ServingStatus()
    index: IndexStatus = IndexStatus()
    ledger: LedgerStatus = LedgerStatus()
    store: StoreStatus = StoreStatus()
    cache: CacheStatus | None = None
    tuning: TuningStatus | None = None
    autoscaling: AutoscalingStatus | None = None
    correction: CorrectionStatus | None = None

    def condition(self, kind: str) -> Condition | None:
        return next((condition for condition in self.conditions if condition.type == kind), None)
