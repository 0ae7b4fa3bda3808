"""What the commands read of a cluster's objects. A newer cluster's or operator's fields are no hindrance."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from diffcache.cluster.errors import ClusterError
from diffcache_core.names import IMAGE_ANNOTATION
from diffcache_core.resource.status import Condition, DiffusionCacheStatus


class View(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel, validate_by_name=True)


class Metadata(View):
    name: str
    namespace: str = ""
    uid: str = ""
    creation_timestamp: datetime
    deletion_timestamp: datetime | None = None
    generation: int = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


# The resource -------------------------------------------------------------------------------------------------------


class ModelView(View):
    source: str
    scheduler: str = ""


class ServingView(View):
    replicas: int = 1
    image: str = ""


class CacheView(View):
    capacity: str = ""


class IndexView(View):
    type: str = ""


class TuningView(View):
    mode: str = "Disabled"


class AutoscalingView(View):
    mode: str = "Disabled"
    min_replicas: int = 1
    max_replicas: int | None = None


class SpecView(View):
    model: ModelView
    serving: ServingView = ServingView()
    cache: CacheView = CacheView()
    index: IndexView = IndexView()
    tuning: TuningView = TuningView()
    autoscaling: AutoscalingView = AutoscalingView()


class Resource(View):
    metadata: Metadata
    spec: SpecView
    status: DiffusionCacheStatus = DiffusionCacheStatus()

    @property
    def ready(self) -> Condition | None:
        return self.status.condition("Ready")

    @property
    def is_seen(self) -> bool:
        """Whether the operator's conditions are about the present spec."""
        return self.status.observed_generation >= self.metadata.generation

    @property
    def is_ready(self) -> bool:
        return self.is_seen and self.ready is not None and self.ready.status == "True"

    @property
    def image(self) -> str:
        """The serving image in use."""
        return self.status.serving.image

    @property
    def image_to_be(self) -> str:
        """The serving image that the operator will use: what it has not seen yet comes first."""
        return self.spec.serving.image or self.metadata.annotations.get(IMAGE_ANNOTATION, "") or self.image


# Pods ---------------------------------------------------------------------------------------------------------------


class Waiting(View):
    reason: str = ""
    message: str = ""


class Terminated(View):
    reason: str = ""
    message: str = ""
    exit_code: int = 0


class State(View):
    waiting: Waiting | None = None
    terminated: Terminated | None = None


class ContainerStatus(View):
    name: str
    ready: bool = False
    restart_count: int = 0
    state: State = State()
    last_state: State = State()


class PodCondition(View):
    type: str
    status: str
    reason: str = ""
    message: str = ""


class PodStatus(View):
    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: tuple[PodCondition, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()

    def condition(self, kind: str) -> PodCondition | None:
        return next((condition for condition in self.conditions if condition.type == kind), None)


class PodSpec(View):
    node_name: str = ""
    containers: tuple[dict[str, Any], ...] = ()


class Pod(View):
    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def is_ready(self) -> bool:
        ready = self.status.condition("Ready")
        return ready is not None and ready.status == "True" and self.metadata.deletion_timestamp is None


# Volumes and events -------------------------------------------------------------------------------------------------


class ClaimSpec(View):
    storage_class_name: str = ""
    resources: dict[str, dict[str, str]] = {}


class ClaimStatus(View):
    phase: str = ""
    capacity: dict[str, str] = {}


class Claim(View):
    metadata: Metadata
    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus = ClaimStatus()

    @property
    def size(self) -> str:
        """What there is, or what is asked for."""
        return self.status.capacity.get("storage") or self.spec.resources.get("requests", {}).get("storage", "")


class Series(View):
    count: int = 1
    last_observed_time: datetime | None = None


class Event(View):
    metadata: Metadata
    type: str = ""
    reason: str = ""
    message: str = ""
    count: int | None = None
    last_timestamp: datetime | None = None
    event_time: datetime | None = None
    series: Series | None = None

    @property
    def time(self) -> datetime:
        """Of its last occurrence; which field has it depends on who made it."""
        seen = self.series.last_observed_time if self.series is not None else None
        return seen or self.last_timestamp or self.event_time or self.metadata.creation_timestamp

    @property
    def times(self) -> int:
        return self.series.count if self.series is not None else self.count or 1


Kind = TypeVar("Kind", bound=View)


def parse_object(kind: type[Kind], answer: object) -> Kind:
    """Raises ClusterError."""
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ClusterError(
            f"the cluster's {kind.__name__} has a {where} that this version does not understand: install the version "
            "of the operator"
        ) from None


def parse_list(kind: type[Kind], answer: Any) -> Sequence[Kind]:
    """Raises ClusterError."""
    return tuple(parse_object(kind, item) for item in answer.get("items") or ())
