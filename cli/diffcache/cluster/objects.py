"""Views of a resource with the fields that the commands read, and the conversion of answers to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from diffcache.cluster.errors import ClusterError
from diffcache_core.kubernetes.metadata import ObjectView
from diffcache_core.kubernetes.view import View
from diffcache_core.names import IMAGE_ANNOTATION
from diffcache_core.resource.status import Condition, DiffusionCacheStatus


class ModelView(View):
    source: str
    scheduler: str = ""


class GpuView(View):
    count: int = 0
    resource_name: str = "nvidia.com/gpu"

    @property
    def wanted(self) -> str:
        """Returns the name of the GPU resource, or an empty string if a pod needs no GPU."""
        return self.resource_name if self.count else ""


class ServingView(View):
    replicas: int = 1
    gpu: GpuView = GpuView()
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


class Resource(ObjectView):
    spec: SpecView
    status: DiffusionCacheStatus = DiffusionCacheStatus()

    @property
    def ready(self) -> Condition | None:
        return self.status.condition("Ready")

    @property
    def is_seen(self) -> bool:
        """Returns whether the operator's conditions are about the current spec."""
        return self.status.observed_generation >= self.metadata.generation

    @property
    def is_ready(self) -> bool:
        return self.is_seen and self.ready is not None and self.ready.status == "True"

    @property
    def image(self) -> str:
        """Returns the current serving image."""
        return self.status.serving.image

    @property
    def new_choice(self) -> str:
        """Returns the serving image that `kubectl diffcache upgrade` chose, until it has run; then an empty string."""
        chosen = self.metadata.annotations.get(IMAGE_ANNOTATION, "")
        return chosen if chosen != self.status.serving.chosen else ""

    @property
    def image_to_be(self) -> str:
        """Returns the serving image that the operator will use. A choice that it has not seen yet takes precedence."""
        return self.spec.serving.image or self.metadata.annotations.get(IMAGE_ANNOTATION, "") or self.image


Kind = TypeVar("Kind", bound=View)


def parse_object(kind: type[Kind], answer: object) -> Kind:
    """Converts one object. Raises ClusterError if this version does not understand it."""
    try:
        return kind.model_validate(answer)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ClusterError(
            f"the cluster's {kind.__name__} has a {where} that this version does not understand: install the version "
            "of the operator"
        ) from None


def parse_list(kind: type[Kind], answer: Any) -> Sequence[Kind]:
    """Converts a list of objects. Raises ClusterError if this version does not understand one of them."""
    return tuple(parse_object(kind, item) for item in answer.get("items") or ())
