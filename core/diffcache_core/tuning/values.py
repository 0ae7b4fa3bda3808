"""What the tuner is given and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from diffcache_core.cache.resume import Level


@dataclass(frozen=True)
class Tuning:
    """What is in force."""

    levels: tuple[Level, ...]  # the skips are the grid, the tuner moves the similarities
    capacity_bytes: int


@dataclass(frozen=True)
class Goals:
    """What the spec asks for."""

    quality_target: float  # alpha, 0 to 1: mean quality of resumed pictures over that of the same ones uncached
    p95_seconds: float | None  # None: levels are as loose as the quality's bound allows
    capacity_min: int
    capacity_max: int  # equal to capacity_min: the capacity stays
    min_gain: float  # steps saved ratio that a doubling of the capacity must bring
    min_similarity: float


@dataclass(frozen=True)
class PairSums:
    """Of comparisons of a picture resumed (c) with the same one drawn without the cache (u), qualities from 0 to 1."""

    n: float
    c: float
    u: float
    cc: float
    uu: float
    cu: float


@dataclass(frozen=True)
class Batch:
    """Increases of the counters between two looks, resets of counters already dealt with."""

    start: float  # seconds since the epoch
    end: float
    pairs: Mapping[tuple[int, float], PairSums]  # by skip percent and lower edge of the similarity's bin


@dataclass(frozen=True)
class Window:
    """What was measured. All but `batches` is since all ready pods have followed the tuning in force.

    Comparisons do not depend on the tuning in force, so `batches` may, and should, reach further back: to
    `tuning.evidence_start`.
    """

    batches: Sequence[Batch]  # oldest first
    steps: float  # asked for, those that were skipped included
    steps_skipped: float
    requests: float
    p95_seconds: float | None
    shadow_ssr: Mapping[float, float]  # by multiple of the capacity in force
    measured_ssr: float | None
    shadow_due: float  # comparisons that were due
    shadow_dropped: float
    newest: float | None  # time of the newest sample; None: no data


@dataclass(frozen=True)
class Decision:
    tuning: Tuning  # the one in force when frozen or at rest
    reason: str  # one CamelCase word
    message: str
    frozen: bool = False
    inputs: Mapping[str, str] = field(default_factory=dict)  # the figures that it rests on
