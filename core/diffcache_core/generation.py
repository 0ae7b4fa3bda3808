"""A request for a picture, its limits, and the kinds of results."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from diffcache_core.names import DEFAULT_TENANT, TENANT_METADATA


def enum_name(text: str) -> str:
    """Returns a name as the enums and the protocol spell it, READ_ONLY: users may also type read_only or read-only."""
    return text.upper().replace("-", "_")


class CacheMode(StrEnum):
    """What a request may do with the cache."""

    DEFAULT = "DEFAULT"
    BYPASS = "BYPASS"  # reads and writes nothing
    REFRESH = "REFRESH"  # writes only
    READ_ONLY = "READ_ONLY"

    @property
    def reads(self) -> bool:
        return self in (CacheMode.DEFAULT, CacheMode.READ_ONLY)

    @property
    def writes(self) -> bool:
        return self in (CacheMode.DEFAULT, CacheMode.REFRESH)


class ImageFormat(StrEnum):
    PNG = "PNG"
    WEBP = "WEBP"
    JPEG = "JPEG"


class Result(StrEnum):
    EXACT = "EXACT"  # the same request with the same explicit seed: the stored picture
    APPROXIMATE = "APPROXIMATE"  # resumed from a cached state
    MISS = "MISS"
    BYPASS = "BYPASS"


@dataclass(frozen=True)
class GenerationRequest:
    """A request with all fields checked.

    `width` and `height` are pixels, `max_skip_percent` is of `steps`, `min_similarity` a cosine.
    """

    prompt: str
    seed: int
    seed_is_explicit: bool  # EXACT is only for requests that name a seed
    steps: int
    guidance: float
    width: int
    height: int
    negative_prompt: str = ""
    format: ImageFormat = ImageFormat.PNG
    cache_mode: CacheMode = CacheMode.DEFAULT
    min_similarity: float = -1.0
    max_skip_percent: int = 100
    request_id: str = ""
    tenant: str = DEFAULT_TENANT

    @property
    def pixels(self) -> int:
        """The area of the picture in pixels."""
        return self.width * self.height


@dataclass(frozen=True)
class Violation:
    """One wrong field: its name, and a message that says what to do."""

    field: str
    message: str


class InvalidRequest(ValueError):
    """The caller must change the request. It holds every violation, not only the first."""

    def __init__(self, violations: list[Violation]) -> None:
        self.violations = violations
        super().__init__("; ".join(f"{v.field}: {v.message}" for v in violations))


MAX_PROMPT_CHARACTERS = 4096  # far beyond what any CLIP tokenizer keeps; higher only costs tokenizer time
MAX_STEPS = 1000  # the training timesteps of Stable Diffusion: a schedule cannot hold more
MAX_GUIDANCE = 50.0  # beyond 20 pictures are oversaturated; the limit only rejects nonsense
MAX_SEED = 2**63 - 1  # what SQLite and torch.Generator both hold
MAX_SIDE = 2048  # pixels; a larger latent does not fit any device that serves SD 1.x or 2.x
LIMITS: Mapping[str, tuple[int | float, int | float]] = {
    "seed": (0, MAX_SEED),
    "steps": (1, MAX_STEPS),
    "guidance": (0, MAX_GUIDANCE),
    "width": (1, MAX_SIDE),
    "height": (1, MAX_SIDE),
    "min_similarity": (-1, 1),
    "max_skip_percent": (0, 100),
}
"""Smallest and largest value of each number of a request, for every model."""
_NAMES = {
    "request_id": (re.compile(r"[A-Za-z0-9._-]{1,128}"), "must be 1 to 128 characters of A-Z a-z 0-9 . _ -"),
    TENANT_METADATA: (re.compile(r"[a-z0-9-]{1,63}"), "must be 1 to 63 characters of a-z 0-9 - (request metadata)"),
}


@dataclass
class RequestChecks:
    """Collects the violations of one request."""

    violations: list[Violation] = field(default_factory=list)

    def fail(self, name: str, message: str) -> None:
        self.violations.append(Violation(name, message))

    def value(self, name: str, value: str | float) -> None:
        """Checks one field as far as that needs no model. Client and server both use it."""
        if name in _NAMES:
            pattern, message = _NAMES[name]
            if not pattern.fullmatch(str(value)):
                self.fail(name, message)
        elif isinstance(value, str):
            self._description(name, value)
        elif not LIMITS[name][0] <= value <= LIMITS[name][1]:  # NaN fails too
            self.fail(name, f"must be {shown_limits(name)}, is {_shown(value)}")

    def _description(self, name: str, value: str) -> None:
        if name == "prompt" and not value.strip():
            self.fail(name, "must not be empty: describe the picture")
        if len(value) > MAX_PROMPT_CHARACTERS:
            self.fail(name, f"must have at most {MAX_PROMPT_CHARACTERS} characters, has {len(value)}: shorten it")
        bad = next((c for c in value if c not in "\n\t\r" and unicodedata.category(c) in ("Cc", "Cs")), None)
        if bad is not None:
            self.fail(name, f"must not contain the control or surrogate character U+{ord(bad):04X}: remove it")

    def multiple(self, name: str, value: int, multiple: int) -> None:
        if value % multiple and not self._is_wrong(name):
            near = min(max(round(value / multiple), 1) * multiple, MAX_SIDE // multiple * multiple)
            self.fail(name, f"must be a multiple of {multiple} pixels, is {value}: try {near}")

    def area(self, width: int, height: int, most: int, multiple: int) -> None:
        if width * height <= most or self._is_wrong("width") or self._is_wrong("height"):
            return
        shrink = math.sqrt(most / (width * height))
        near = (int(side * shrink) // multiple * multiple for side in (width, height))
        tried = " x ".join(str(max(side, multiple)) for side in near)
        area = f"{width} x {height} = {width * height}"
        self.fail("width", f"times height must be at most {most} pixels here, is {area}: try {tried}")

    def _is_wrong(self, name: str) -> bool:
        return any(violation.field == name for violation in self.violations)


def check_request(request: GenerationRequest, *, size_multiple: int, max_pixels: int = MAX_SIDE**2) -> None:
    """Checks a request. Raises InvalidRequest with every violation.

    Args:
        request: the caller's request with its defaults.
        size_multiple: width and height must be multiples of this: pixels per latent cell times the denoiser's
            down-sampling factor.
        max_pixels: largest area, width times height.
    """
    checks = RequestChecks()
    for name in ("prompt", "negative_prompt", *LIMITS, "request_id"):
        checks.value(name, getattr(request, name))
    checks.value(TENANT_METADATA, request.tenant)
    checks.multiple("width", request.width, size_multiple)
    checks.multiple("height", request.height, size_multiple)
    checks.area(request.width, request.height, max_pixels, size_multiple)
    if checks.violations:
        raise InvalidRequest(checks.violations)


def shown_limits(name: str) -> str:
    low, high = LIMITS[name]
    return f"from {_shown(low)} to {_shown(high)}"


def _shown(number: float) -> str:
    if isinstance(number, int) and number.bit_length() > 128:
        return (
            "a far larger number" if number > 0 else "a far smaller number"
        )  # Python refuses to print a very long number
    return str(number) if isinstance(number, int) else f"{number:g}"
