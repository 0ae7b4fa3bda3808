"""The `DiffusionCache` resource: the one source of the manifest's rules.

Only fields that work are here; every other key is refused by name. Sizes are Kubernetes quantities, similarities and
other fractions decimal strings, percentages integers.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Annotated, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from diffcache_core.generation import MAX_GUIDANCE, MAX_SIDE, MAX_STEPS
from diffcache_core.names import API_VERSION, KIND
from diffcache_core.resume import Level, Levels
from diffcache_core.states import StateKind

_QUANTITY = re.compile(r"(\d+)(Ki|Mi|Gi|Ti|k|M|G|T)?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12} | {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


class ManifestError(ValueError):
    """The manifest cannot be used. The message names each wrong field and what to write instead."""


def bytes_of(quantity: str) -> int:
    """Bytes of a quantity such as `64Mi`. Raises ValueError for anything else."""
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError(f"must be a quantity such as 64Mi or 2Gi, is {quantity!r}")
    size = int(match[1]) * _UNITS[match[2] or ""]
    if size >= 2**63:
        raise ValueError(f"must be below 2^63 bytes, is {quantity!r}")
    return size


def _check_quantity(value: str) -> str:
    if bytes_of(value) < 2**20:
        raise ValueError(f"must be at least 1Mi, is {value!r}")
    return value


def _decimal_between(low: Decimal, high: Decimal) -> AfterValidator:
    def check(value: str) -> str:
        try:
            number = Decimal(value)
        except InvalidOperation:
            raise ValueError(f'must be a decimal in quotes such as "0.8", is {value!r}') from None
        if not number.is_finite() or not low <= number <= high:
            raise ValueError(f"must be from {low} to {high}, is {value!r}")
        return value

    return AfterValidator(check)


Quantity = Annotated[str, AfterValidator(_check_quantity)]
Similarity = Annotated[str, _decimal_between(Decimal(0), Decimal(1))]
Guidance = Annotated[str, _decimal_between(Decimal(0), Decimal(int(MAX_GUIDANCE)))]
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
    LITE = "Lite"  # Milvus Lite, embedded
    EXTERNAL = "External"  # a Milvus that somebody else runs


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


def _check_source(value: str) -> str:
    if not re.fullmatch(r"(bundled://[a-z0-9-]+|file://.+)", value):
        raise ValueError(f"must be bundled://emoji, or file:// and the path of a diffusers folder, is {value!r}")
    return value


class ModelSpec(Block):
    source: Annotated[str, AfterValidator(_check_source)]
    scheduler: Scheduler = "DDIM"
    dtype: DType = DType.AUTO
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None  # of a request that names none
    guidance: Guidance | None = None
    width: Annotated[int, Field(ge=8, le=MAX_SIDE, multiple_of=8)] | None = None  # pixels
    height: Annotated[int, Field(ge=8, le=MAX_SIDE, multiple_of=8)] | None = None


class BatchSpec(Block):
    max_size: Annotated[int, Field(ge=1, le=64)] = 8  # requests in one denoiser call


class QueueSpec(Block):
    max_steps: Annotated[int, Field(ge=1, le=10**6)] = 4000  # queued and running; beyond it RESOURCE_EXHAUSTED


class ServingSpec(Block):
    batch: BatchSpec = BatchSpec()
    queue: QueueSpec = QueueSpec()


class LevelSpec(Block):
    skip_percent: Annotated[int, Field(ge=1, le=99)]
    similarity: Similarity


class CacheSpec(Block):
    capacity: Quantity = "64Mi"
    state: StateKind = StateKind.CLEAN
    levels: Annotated[list[LevelSpec], Field(max_length=20)] | None = None  # absent: the model's own table
    scope: Scope = Scope.TENANT

    @model_validator(mode="after")
    def _levels_rise(self) -> CacheSpec:
        if self.levels is not None:
            Levels(tuple(Level(level.skip_percent, float(level.similarity)) for level in self.levels))
        return self


class ExternalIndexSpec(Block):
    uri: Annotated[str, Field(pattern=r"^https?://[^\s/]+$")]


class IndexSpec(Block):
    type: IndexType = IndexType.LITE
    external: ExternalIndexSpec | None = None

    @model_validator(mode="after")
    def _block_of_type(self) -> IndexSpec:
        if (self.external is not None) != (self.type is IndexType.EXTERNAL):
            raise ValueError("set external: {uri: http://HOST:PORT} exactly when type is External")
        return self


class DiffusionCacheSpec(Block):
    model: ModelSpec
    serving: ServingSpec = ServingSpec()
    cache: CacheSpec = CacheSpec()
    index: IndexSpec = IndexSpec()


class Metadata(BaseModel):
    """Kubernetes knows many more metadata fields; only the name concerns us."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")]


class DiffusionCache(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    apiVersion: Literal["diffcache.io/v1alpha1"]
    kind: Literal["DiffusionCache"]
    metadata: Metadata
    spec: DiffusionCacheSpec


def parse_manifest(text: str, origin: str = "manifest") -> DiffusionCache:
    """The one DiffusionCache in a YAML text. Raises ManifestError, naming `origin`, the field and the remedy."""
    try:
        documents = [d for d in yaml.safe_load_all(text) if d is not None]
    except yaml.YAMLError as error:
        raise ManifestError(f"{origin} is not YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:  # yaml lets the constructors' own errors through, for a date such as 2026-99-99
        raise ManifestError(f"{origin} is not YAML: {error}") from None
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise ManifestError(
            f"{origin} must hold one {KIND} ({API_VERSION}), holds {len(documents)} documents"
            if len(documents) != 1
            else f"{origin} must be a mapping with apiVersion, kind, metadata and spec"
        )
    try:
        return DiffusionCache.model_validate(documents[0])
    except ValidationError as error:
        raise ManifestError(f"{origin} is not a valid {KIND}:\n{explain_validation(error)}") from None


def explain_validation(error: ValidationError) -> str:
    """One line a wrong field: where it is, and what to do about it."""
    return "\n".join(f"  {_path(item['loc'])}: {_advice(item)}" for item in error.errors(include_url=False))


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path or "the document"


def _advice(error: object) -> str:
    """pydantic's sentence, without its type names, and with the value that was found."""
    assert isinstance(error, dict)
    if error["type"] == "extra_forbidden":
        return "unknown key: remove it (or is it misspelt, or from a newer version?)"
    if error["type"] == "missing":
        return "is required: add it"
    message = str(error["msg"]).removeprefix("Value error, ")
    value = error.get("input")
    if error["type"] in ("string_type", "int_type", "model_type", "list_type") or "Input should" in message:
        message = message.replace("Input should", "should")
        shown = repr(value)
        message += f", is {shown if len(shown) <= 60 else shown[:57] + '...'}"
        if error["type"] == "string_type" and isinstance(value, int | float):
            message += ": put it in quotes"
    return message
