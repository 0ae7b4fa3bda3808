"""`spec.serving`: the pods."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictInt

from diffcache_core.resource.pod import Annotations, PodOptions, Text
from diffcache_core.resource.rules import Block, Change, Rule
from diffcache_core.resource.spec.values import Resources

MAX_REPLICAS = 64
"""Pods of one cache at most: this many were simulated; a Redis can serve many more."""


class GpuSpec(Block):
    """The GPUs of a serving pod."""

    count: Annotated[StrictInt, Field(ge=0, le=16), Change.ROLL] = 0
    """GPUs of a pod; above 0 a pod without CUDA ends. With dtype Auto, a change from or to 0 begins a new space."""
    resource_name: Annotated[
        str,
        Field(max_length=253),
        Rule.matches(r"^[a-z0-9.-]+/[a-z0-9A-Z._-]+$", "must be a resource such as nvidia.com/gpu"),
        Change.ROLL,
    ] = "nvidia.com/gpu"
    """The device plug-in's resource; for a MIG slice a name such as nvidia.com/mig-1g.10gb."""


class BatchSpec(Block):
    """How requests share the device."""

    max_size: Annotated[StrictInt, Field(ge=1, le=64), Change.HOT] = 8
    """Requests that may share one denoiser call at most."""


class QueueSpec(Block):
    """How much work may wait for a pod."""

    max_steps: Annotated[StrictInt, Field(ge=1, le=10**6), Change.HOT] = 4000
    """Most work of a pod, queued and running, in steps at the model's own size; beyond it: RESOURCE_EXHAUSTED."""


class ServiceAccountSpec(Block):
    """The ServiceAccount of all pods of the cache."""

    annotations: Annotated[Annotations, Change.ROLL] | None = None
    """Annotations of the pods' ServiceAccount, such as eks.amazonaws.com/role-arn for a cloud's web identity."""


class ServingSpec(Block):
    """The pods that serve."""

    replicas: Annotated[
        StrictInt,
        Field(ge=0, le=MAX_REPLICAS),
        Change.HOT,
    ] = 1
    """Number of pods. More than 1 needs an index, a ledger and a store outside the pods, which they can share."""
    image: Annotated[Text, Field(min_length=1), Change.ROLL] | None = None
    """Image of the serving pods; absent: the one in status.serving.image, at first the operator's default."""
    gpu: GpuSpec = GpuSpec()
    resources: Annotated[Resources, Change.ROLL] = Resources()
    """Requests and limits of the serving container; GPUs go into `gpu`."""
    batch: BatchSpec = BatchSpec()
    queue: QueueSpec = QueueSpec()
    service_account: ServiceAccountSpec = ServiceAccountSpec()
    pod: Annotated[PodOptions, Change.ROLL] = PodOptions()
    """Options of the serving pods. Redis and Milvus use its nodes, user and labels, too."""
