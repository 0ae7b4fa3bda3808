"""Makes a complete request from a draft: fills in defaults, draws the seed and checks the fields.

A draft is a request as it was received; fields that the caller did not set are None.
"""

from __future__ import annotations

import secrets
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from diffcache_core.generation import (
    CacheMode,
    GenerationRequest,
    ImageFormat,
    InvalidRequest,
    Violation,
    check_request,
)
from diffcache_core.names import DEFAULT_TENANT, TENANT_METADATA
from diffcache_serving.values.defaults import ModelDefaults

SEEDS = 2**32
"""Number of possible random seeds. More would not give more different pictures: see `noise` of the model."""


@dataclass(frozen=True)
class RequestDraft:
    """A request as received. `violations` holds errors found during conversion, such as an unknown image format."""

    prompt: str
    negative_prompt: str = ""
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    width: int | None = None  # pixels
    height: int | None = None
    format: ImageFormat = ImageFormat.PNG
    cache_mode: CacheMode = CacheMode.DEFAULT
    min_similarity: float | None = None  # a cosine
    max_skip_percent: int | None = None  # percent of the steps
    request_id: str = ""
    violations: Sequence[Violation] = ()


def complete(draft: RequestDraft, tenant: str, defaults: ModelDefaults) -> GenerationRequest:
    """Returns the complete, checked request. Raises InvalidRequest with every wrong field."""
    request = GenerationRequest(
        prompt=draft.prompt,
        negative_prompt=draft.negative_prompt,
        seed=secrets.randbelow(SEEDS) if draft.seed is None else draft.seed,
        seed_is_explicit=draft.seed is not None,
        steps=defaults.steps if draft.steps is None else draft.steps,
        guidance=_as_float32(defaults.guidance if draft.guidance is None else draft.guidance),
        width=defaults.width if draft.width is None else draft.width,
        height=defaults.height if draft.height is None else draft.height,
        format=draft.format,
        cache_mode=draft.cache_mode,
        min_similarity=-1.0 if draft.min_similarity is None else draft.min_similarity,
        max_skip_percent=100 if draft.max_skip_percent is None else draft.max_skip_percent,
        request_id=draft.request_id or uuid.uuid4().hex,
        tenant=tenant,
    )
    violations = list(draft.violations)
    try:
        check_request(request, size_multiple=defaults.size_multiple, max_pixels=defaults.max_pixels)
    except InvalidRequest as error:
        violations += error.violations
    if violations:
        raise InvalidRequest(violations)
    return request


def tenant_of(named: Sequence[str]) -> str:
    """Returns the tenant that the request's metadata name. Raises InvalidRequest if they name more than one."""
    if len(named) > 1:  # the caller and the proxy each named one: neither may win
        raise InvalidRequest([Violation(TENANT_METADATA, f"must be given once, is given {len(named)} times")])
    return named[0] if named else DEFAULT_TENANT


def _as_float32(value: float) -> float:
    """Rounds to float32, because gRPC carries float32.

    Every protocol and every default is rounded alike, so that the same guidance always gives the same space.
    """
    return float(struct.unpack("f", struct.pack("f", value))[0])
