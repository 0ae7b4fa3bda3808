"""`spec.serving`: the pods."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictInt

from diffcache_core.resource.pod import Annotations, PodOptions, Text
from diffcache_core.resource.rules import Block, Change, Rule
from diffcache_core.resource.spec.values import Resources

MAX_REPLICAS = 64
"""Pods of one cache: as many as were simulated; a Redis holds out against many more."""


class GpuSpec(Block):
    """The GPUs of a serving pod."""

    count: Annotated[StrictInt, Field(ge=0, le=16), Change.ROLL] = 0
    """GPUs of a pod; above 0 a pod without CUDA ends with the reason. From or to 0, dtype Auto begins a new space."""
    resource_name: Annotated[
        str,
        Field(max_length=253),
        Rule.matches(r"^[a-z0-9.-]+/[a-z0-9A-Z._-]+$", "must be a resource such as nvidia.com/gpu"),
        Change.ROLL,
    ] = "nvidia.com/gpu"
    """The device plug-in's resource; for a MIG slice such as nvidia.com/mig-1g.10gb."""


class BatchSpec(Block):
    """How requests share the device."""

    max_size: Annotated[StrictInt, Field(ge=1, le=64), Change.HOT] = 8
    """Requests that may share one denoiser call."""


class QueueSpec(Block):
    """How much work may wait for a pod."""

    max_steps: Annotated[StrictInt, Field(ge=1, le=10**6), Change.HOT] = 4000
    """Work queued and running, in denoising steps at the model's own size; beyond it RESOURCE_EXHAUSTED."""


class ServiceAccountSpec(Block):
    """The identity that all pods of the cache run under."""

    annotations: Annotated[Annotations, Change.ROLL] | None = None
    """Annotations of the pods' ServiceAccount, such as eks.amazonaws.com/role-arn for a cloud's web identity."""


class ServingSpec(Block):
    """The pods that serve."""

    replicas: Annotated[
        StrictInt,
        Field(ge=0, le=MAX_REPLICAS),
        Change.HOT,
    ] = 1
    """More than 1 needs what replicas can share: an index, a ledger and a store outside of the pods."""
    image: Annotated[Text, Field(min_length=1), Change.ROLL] | None = None
    """Image of the serving pods; absent: the one in status.serving.image, at first the operator's default."""
    gpu: GpuSpec = GpuSpec()
    resources: Annotated[Resources, Change.ROLL] = Resources()
    """Requests and limits of the serving container; GPUs go into `gpu`."""
    batch: BatchSpec = BatchSpec()
    queue: QueueSpec = QueueSpec()
    service_account: ServiceAccountSpec = ServiceAccountSpec()
    pod: Annotated[PodOptions, Change.ROLL] = PodOptions()
    """Passed on to the serving pods; Redis and Milvus follow in where they run, as whom, and what they carry."""
