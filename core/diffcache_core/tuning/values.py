"""Input and output of the tuner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from diffcache_core.cache.resume import Level


@dataclass(frozen=True)
class Tuning:
    """The levels and the capacity in force."""

    levels: tuple[Level, ...]  # the tuner only moves the similarities, not the skips
    capacity_bytes: int


@dataclass(frozen=True)
class Goals:
    """The goals that the spec sets. Capacities are in bytes."""

    quality_target: (
        float  # alpha, 0 to 1: mean quality of resumed pictures over that of the same pictures without the cache
    )
    p95_seconds: float | None  # None: levels are as loose as the quality target allows
    capacity_min: int
    capacity_max: int  # if equal to capacity_min, the capacity stays
    min_gain: float  # steps saved ratio that a doubling of the capacity must bring
    min_similarity: float


@dataclass(frozen=True)
class PairSums:
    """Sums over n pairs: quality c of a resumed picture, and u of the same picture without the cache, both from 0 to
    1."""

    n: float
    c: float
    u: float
    cc: float
    uu: float
    cu: float


@dataclass(frozen=True)
class Batch:
    """Increases of the counters between two looks; resets of counters are already accounted for."""

    start: float  # seconds since the epoch
    end: float
    pairs: Mapping[tuple[int, float], PairSums]  # by skip percent and lower edge of the similarity's bin


@dataclass(frozen=True)
class Window:
    """The measurements. All values except `batches` count since all ready pods follow the tuning in force.

    Comparisons do not depend on the tuning in force, so `batches` should reach further back: to
    `tuning.evidence_start`.
    """

    batches: Sequence[Batch]  # oldest first
    steps: float  # asked for, including the skipped ones
    steps_skipped: float
    requests: float
    p95_seconds: float | None
    shadow_ssr: Mapping[float, float]  # steps saved ratio, by multiple of the capacity in force
    measured_ssr: float | None
    shadow_due: float  # comparisons that were due
    shadow_dropped: float
    newest: float | None  # time of the newest sample; None: no data


@dataclass(frozen=True)
class Decision:
    tuning: Tuning  # the one in force if frozen or at rest
    reason: str  # one CamelCase word
    message: str
    frozen: bool = False
    inputs: Mapping[str, str] = field(default_factory=dict)  # the figures on which the decision is based
