"""The plan of one comparison. It is made after the request was answered, and runs when the device is idle."""

from __future__ import annotations

import time
from dataclasses import dataclass

from PIL import Image

from diffcache_core.cache.resume import Levels, skip_to_k
from diffcache_core.cache.states import StateKind
from diffcache_core.generation import GenerationRequest, Result
from diffcache_core.tuning.comparisons import ALLOWED_SHARE, fraction_of, granted_percent, percent_to_try
from diffcache_serving.cache.cache import Cache
from diffcache_serving.values.found import Found, Resume
from diffcache_serving.values.request_events import Answered


@dataclass(frozen=True)
class Arrival:
    """What is decided when a request arrives."""

    is_due: bool  # True if the request will be compared
    at: float  # time of arrival, seconds since the epoch


@dataclass(frozen=True)
class ResumePoint:
    """A skip percentage from the table of levels, and the similarity of the resume."""

    percent: int
    similarity: float


@dataclass(frozen=True)
class Probe:
    """A resume that is drawn only for the comparison, not for a client."""

    level: ResumePoint
    resume: Resume


@dataclass(frozen=True)
class Plan:
    """The comparisons to make for one request. `steps` is the number of steps that they need."""

    request: GenerationRequest
    served: Image.Image
    hit: ResumePoint | None  # where the served picture was resumed; None if it was drawn without the cache
    probe: Probe | None
    deadline: float  # value of time.monotonic() after which the plan is dropped

    @property
    def steps(self) -> int:
        uncached = 0 if self.hit is None else self.request.steps
        return uncached + (0 if self.probe is None else self.request.steps - self.probe.resume.k)

    @property
    def nbytes(self) -> int:
        width, height = self.served.size
        tensors = () if self.probe is None else self.probe.resume.tensors.values()
        return 3 * width * height + sum(tensor.nbytes for tensor in tensors)


async def make_plan(cache: Cache, answered: Answered, arrived: float, wait_seconds: float) -> Plan | None:
    """Returns the plan for an answered request, or None if there is nothing to compare.

    `arrived` is in seconds since the epoch. Raises what index and ledger raise.
    """
    request, found = answered.request, answered.found
    if found.result not in (Result.APPROXIMATE, Result.MISS) or not request.cache_mode.reads or answered.flagged:
        return None
    hit = _level_of_hit(found, cache.levels, request.steps)
    if found.result is Result.APPROXIMATE and hit is None:
        return None
    probe = await _choose_probe(cache, answered, arrived)
    if hit is None and probe is None:
        return None
    return Plan(request, answered.image, hit, probe, time.monotonic() + wait_seconds)


def _level_of_hit(found: Found, levels: Levels, steps: int) -> ResumePoint | None:
    if not isinstance(found, Resume):
        return None
    percent = granted_percent(levels, found.k, steps, found.granted_skip)
    return None if percent is None else ResumePoint(percent, found.similarity)


async def _choose_probe(cache: Cache, answered: Answered, arrived: float) -> Probe | None:
    query, request = answered.query, answered.request
    if not cache.levels.table or not query.text.has_key:
        return None
    near = await cache.nearest(query, arrived)
    if near is None:
        return None
    is_reseed = near.same_prompt and not near.same_seed and cache.kind is StateKind.CLEAN
    percent = percent_to_try(
        cache.levels,
        near.similarity,
        request.steps,
        cap=cache.levels.reseed_skip_percent if is_reseed else 100,
        allowed_too=answered.found.k == 0 and fraction_of(request.request_id, "allowed") < ALLOWED_SHARE,
    )
    if percent is None:
        return None
    resume = await cache.resume_at(near, skip_to_k(percent, request.steps))
    return None if resume is None else Probe(ResumePoint(percent, near.similarity), resume)
