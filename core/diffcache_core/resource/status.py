"""The resource's status, which the operator writes, in the form of Kubernetes' API conventions."""

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
    """Type of the condition, such as Ready."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds."""
    reason: Annotated[str, Field(max_length=1024)]
    """One CamelCase word."""
    message: Annotated[str, Field(max_length=32768)]
    """What the state is, and what to do about it."""
    observed_generation: int
    """The generation of the resource that the condition is about."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """Time at which `status` changed last."""


class ServingStatus(_Block):
    """Images of the serving pods."""

    image: str = ""
    """The serving image with which a pod was ready last. It stays in use, also after an upgrade of the operator, unless
    spec.serving.image names another one."""
    chosen: str = ""
    """The last image that `kubectl diffcache upgrade` chose and with which a pod was ready."""
    available: str = ""
    """The operator's default image, if it is another one: `kubectl diffcache upgrade` changes to it."""


class IndexStatus(_Block):
    """What the operator knows about the index."""

    image: str = ""
    """The image with which the resource's own Milvus was ready last, if it has one."""
    reached: bool = False
    """Whether a pod has ever reached the index."""


class LedgerStatus(_Block):
    """What the operator knows about the ledger."""

    image: str = ""
    """The image with which the resource's own Redis was ready last, if it has one."""
    reached: bool = False
    """Whether a pod has ever reached the ledger."""


class StoreStatus(_Block):
    """What the operator knows about the store."""

    reached: bool = False
    """Whether a pod has ever reached the bucket."""


class CacheStatus(_Block):
    """Figures of the running pods, written at most once a minute."""

    steps_saved_ratio: str = ""
    """Skipped steps divided by all steps since the pods started: the share of denoising that the cache saved."""
    hit_ratio: str = ""
    """Requests answered EXACT or APPROXIMATE, divided by all requests that may read the cache."""
    entries: int = 0
    """Number of entries in the cache."""
    bytes: int = 0
    """Bytes that the states of the entries take."""


class LevelStatus(_Block):
    """A level: from this similarity on, this percentage of the steps may be skipped."""

    skip_percent: int
    """Percentage of the steps that may be skipped."""
    similarity: str
    """Lowest cosine similarity for this level."""


class TuningDecision(_Block):
    """A decision of the tuner, and its reasons."""

    time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """Time of the decision."""
    revision: int
    """The revision after the decision."""
    reason: str
    """One CamelCase word: Loosened, Tightened, Grown, Shrunk, Reset or Recommended."""
    message: Annotated[str, Field(max_length=1024)]
    """Why, for a person."""
    capacity: str
    """The capacity from then on."""
    levels: Annotated[list[LevelStatus], Field(max_length=20)] = []
    """The levels from then on."""
    inputs: dict[str, str] = {}
    """The figures on which the decision is based, by name."""


class TuningStatus(_Block):
    """The tuner's record. While tuning.mode is Auto, its values are used instead of the spec's."""

    revision: int = 0
    """Number that rises with each decision; the pods export the revision that they follow."""
    based_on: str = ""
    """Digest of the spec's model, cache and tuning parts. If it changes, the spec's values hold again."""
    capacity: str = ""
    """The capacity in force."""
    levels: Annotated[list[LevelStatus], Field(max_length=20)] = []
    """The levels in force."""
    window_start: str = ""
    """Time since which all ready pods follow this revision: earlier figures do not count. Empty: not yet."""
    measured_of: str = ""
    """Digest of the model, the kind of state and the scorer of the comparisons."""
    measured_since: str = ""
    """Time since which comparisons count: since all ready pods follow this spec. Decisions do not change it."""
    pods: int = 0
    """Most serving pods at once since measuredSince: series of a pod with a higher number do not count."""
    decision: str = ""
    """What the tuner did last, or why it does nothing."""
    history: Annotated[list[TuningDecision], Field(max_length=10)] = []
    """The last ten decisions, newest first."""


class AutoscalingStatus(_Block):
    """The last change of the operator's scaling loop."""

    replicas: int = 0
    """The number of pods that the loop set."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Why, for a person."""
    time: str = ""
    """Time of the change."""


class CorrectionStatus(_Block):
    """The last change by hand that the operator undid."""

    message: Annotated[str, Field(max_length=1024)] = ""
    """Which object was changed, in which field, and by whom."""
    time: str = ""
    """Time at which it was undone."""


class DiffusionCacheStatus(_Block):
    """The observed state."""

    observed_generation: int = -1
    """The generation that this status is about; -1: no operator has looked at the resource yet."""
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            json_schema_extra={LIST_TYPE: "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = []
    """Ready, and further conditions that explain it."""
    replicas: int = 0
    """Existing pods, ready or not."""
    ready_replicas: int = 0
    """Pods that are ready."""
    selector: str = ""
    """Label selector of the serving pods, for autoscalers."""
    endpoint: str = ""
    """Address for clients inside the cluster."""
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
