"""The values of choices in a manifest and in the config of a serving process."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, get_args

Scheduler = Literal["DDIM", "Euler", "DPM++2M"]
SCHEDULERS: tuple[str, ...] = get_args(Scheduler)


class DType(StrEnum):
    AUTO = "Auto"  # float16 on CUDA, float32 on a CPU
    FLOAT16 = "Float16"
    BFLOAT16 = "BFloat16"
    FLOAT32 = "Float32"


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


class Scope(StrEnum):
    TENANT = "Tenant"  # a tenant never resumes from another one's states
    SHARED = "Shared"


class StoreType(StrEnum):
    VOLUME = "Volume"  # on a volume of the pod
    S3 = "S3"  # in a bucket that several pods share
