"""One request for a picture, and what came of it."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass, field
from enum import StrEnum

from diffcache_core.names import DEFAULT_TENANT


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
    """A request whose every field has been checked.

    `width` and `height` are pixels, `max_skip` is a percentage of `steps`, `min_similarity` a cosine.
    """

    prompt: str
    seed: int
    seed_is_explicit: bool  # EXACT is only for callers who asked for a seed
    steps: int
    guidance: float
    width: int
    height: int
    negative_prompt: str = ""
    format: ImageFormat = ImageFormat.PNG
    cache_mode: CacheMode = CacheMode.DEFAULT
    min_similarity: float = -1.0
    max_skip: int = 100
    request_id: str = ""
    tenant: str = DEFAULT_TENANT

    @property
    def pixels(self) -> int:
        """The picture's area."""
        return self.width * self.height


@dataclass(frozen=True)
class Violation:
    """One wrong field: its name, and what to do about it."""

    field: str
    message: str


class InvalidRequest(ValueError):
    """The caller must change the request. Carries every violation found, not only the first."""

    def __init__(self, violations: list[Violation]) -> None:
        self.violations = violations
        super().__init__("; ".join(f"{v.field}: {v.message}" for v in violations))


MAX_PROMPT_CHARACTERS = 4096  # far beyond what any CLIP tokenizer keeps; higher only costs tokenizer time
MAX_STEPS = 1000  # the training timesteps of Stable Diffusion: a schedule cannot hold more
MAX_GUIDANCE = 50.0  # beyond 20 pictures are burnt; the limit only stops nonsense
MAX_SEED = 2**63 - 1  # what SQLite and torch.Generator both hold
MAX_SIDE = 2048  # pixels; a larger latent does not fit any device that serves SD 1.x or 2.x
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_TENANT = re.compile(r"[a-z0-9-]{1,63}")


@dataclass
class RequestChecks:
    """Collects the violations of one request."""

    size_multiple: int  # pixels: what the model's latents need
    violations: list[Violation] = field(default_factory=list)

    def fail(self, name: str, message: str) -> None:
        self.violations.append(Violation(name, message))

    def text(self, name: str, value: str, *, required: bool) -> None:
        if required and not value.strip():
            self.fail(name, "must not be empty: describe the picture")
        if len(value) > MAX_PROMPT_CHARACTERS:
            self.fail(name, f"must have at most {MAX_PROMPT_CHARACTERS} characters, has {len(value)}: shorten it")
        bad = next((c for c in value if c not in "\n\t\r" and unicodedata.category(c) in ("Cc", "Cs")), None)
        if bad is not None:
            self.fail(name, f"must not contain the control or surrogate character U+{ord(bad):04X}: remove it")

    def number(self, name: str, value: float, low: float, high: float) -> None:
        if not low <= value <= high:  # NaN fails too
            self.fail(name, f"must be from {_shown(low)} to {_shown(high)}, is {_shown(value)}")

    def size(self, name: str, value: int) -> None:
        multiple = self.size_multiple
        if not multiple <= value <= MAX_SIDE or value % multiple:
            near = min(max(round(value / multiple), 1) * multiple, MAX_SIDE // multiple * multiple)
            self.fail(
                name, f"must be a multiple of {multiple} from {multiple} to {MAX_SIDE} pixels, is {value}: try {near}"
            )

    def area(self, width: int, height: int, most: int) -> None:
        if width * height <= most or any(v.field in ("width", "height") for v in self.violations):
            return
        shrink = math.sqrt(most / (width * height))
        near = (int(side * shrink) // self.size_multiple * self.size_multiple for side in (width, height))
        tried = " x ".join(str(max(side, self.size_multiple)) for side in near)
        area = f"{width} x {height} = {width * height}"
        self.fail("width", f"times height must be at most {most} pixels here, is {area}: try {tried}")


def check_request(request: GenerationRequest, *, size_multiple: int, max_pixels: int = MAX_SIDE**2) -> None:
    """Raises InvalidRequest with every violation of `request`.

    Args:
        request: what the caller asked for, defaults filled in.
        size_multiple: pixels that one latent cell covers, times what the denoiser's down-sampling needs.
        max_pixels: largest area, width times height.
    """
    checks = RequestChecks(size_multiple)
    checks.text("prompt", request.prompt, required=True)
    checks.text("negative_prompt", request.negative_prompt, required=False)
    checks.number("seed", request.seed, 0, MAX_SEED)
    checks.number("steps", request.steps, 1, MAX_STEPS)
    checks.number("guidance", request.guidance, 0, MAX_GUIDANCE)
    checks.size("width", request.width)
    checks.size("height", request.height)
    checks.area(request.width, request.height, max_pixels)
    checks.number("min_similarity", request.min_similarity, -1, 1)
    checks.number("max_skip_percent", request.max_skip, 0, 100)
    if not _REQUEST_ID.fullmatch(request.request_id):
        checks.fail("request_id", "must be 1 to 128 characters of A-Z a-z 0-9 . _ -")
    if not _TENANT.fullmatch(request.tenant):
        checks.fail("x-diffcache-tenant", "must be 1 to 63 characters of a-z 0-9 - (request metadata)")
    if checks.violations:
        raise InvalidRequest(checks.violations)


def _shown(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"
