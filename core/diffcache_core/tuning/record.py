"""The tuner's record, `status.tuning` of a cluster and a file of `diffcache up`: how a decision changes it. Pure.

The record never moves the spec. It belongs to one spec, by digest: under another one it falls back to the spec.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from diffcache_core.cache.resume import Level, Levels
from diffcache_core.cache.space import sha256_of_json
from diffcache_core.quantities import MEBIBYTE, bytes_of, quantity_of
from diffcache_core.resource.spec import DiffusionCacheSpec, TuningMode
from diffcache_core.resource.status import LevelStatus, TuningDecision, TuningStatus

if TYPE_CHECKING:
    from diffcache_core.tuning.tuner import Decision, Goals, Tuning

RECORD_FILE = "tuning.json"
"""Where `diffcache up` keeps it, in the data folder."""

HISTORY = 10
"""Decisions that are kept: as many as the schema of the status allows."""

MAX_REVISION = 2**53 - 1
"""Pods export the revision as a float, which counts no further."""

RECOMMENDED = "Recommended"
"""The reason of a decision that nothing follows; its own is in the message."""

_MESSAGE_LENGTH = 1024  # as the schema has it
_DIGEST_DIGITS = 12  # hexadecimal: enough to tell one resource's specs apart


def based_on(spec: DiffusionCacheSpec) -> str:
    """Digest of what the tuner starts from and aims at. A change of anything else, such as a volume's size, leaves what
    it has found. Defaults are left out, so that a field of a later version leaves it, too."""
    parts = {
        "measured": measured_of(spec),  # levels are of one model
        "cache": spec.cache.model_dump(mode="json", include={"capacity", "levels"}, exclude_defaults=True),
        "tuning": spec.tuning.model_dump(mode="json", exclude_defaults=True),
    }
    return sha256_of_json(parts)[:_DIGEST_DIGITS]


def measured_of(spec: DiffusionCacheSpec) -> str:
    """Digest of what comparisons depend on: the model, what is resumed from, and who judges. Other goals, and another
    mode, need no new pictures."""
    identity = {"source", "revision", "scheduler", "dtype"}
    parts = {
        "model": spec.model.model_dump(mode="json", include=identity, exclude_defaults=True),
        "state": spec.cache.state.value,
        "scorer": spec.tuning.quality.scorer,
    }
    return sha256_of_json(parts)[:_DIGEST_DIGITS]


def record_for(spec: DiffusionCacheSpec, record: TuningStatus | None, now: float) -> TuningStatus:
    """`record` as long as it belongs to `spec`; else a new one that says nothing, so that the spec's values hold.

    Comparisons go on counting as long as they are of the same pictures. The revision goes on rising, so nobody takes
    figures of the old one for those of the new. `now`: seconds since the epoch.
    """
    digest, measured = based_on(spec), measured_of(spec)
    if record is None:
        return TuningStatus(based_on=digest, measured_of=measured)
    since = record.measured_since if record.measured_of == measured else ""
    if not is_usable(record):
        since = ""
        message = "the record held what no tuner writes (edited by hand?): the resource's own values hold again"
    elif record.based_on != digest:
        message = "the resource's model, cache or tuning part changed: its own values hold again"
    else:
        return record
    revision = record.revision + 1 if 0 <= record.revision < MAX_REVISION else 1
    entry = TuningDecision(
        time=time_text(now),
        revision=revision,
        reason="Reset",
        message=message,
        capacity=spec.cache.capacity,
        levels=[LevelStatus(skip_percent=v.skip_percent, similarity=v.similarity) for v in spec.cache.levels or []],
    )
    return TuningStatus(
        revision=revision,
        based_on=digest,
        measured_of=measured,
        measured_since=since,
        pods=record.pods if since else 0,
        decision=_told(entry),
        history=_prepended(entry, record.history),
    )


def is_usable(record: TuningStatus) -> bool:
    """Whether pods and tuner can go by it. A status may be edited by whoever has the right, and restored by halves."""
    try:
        Levels(tuple(Level(v.skip_percent, float(v.similarity)) for v in record.levels))
        similarities = [float(v.similarity) for v in record.levels]
        is_possible = not record.capacity or bytes_of(record.capacity) >= MEBIBYTE
    except ValueError:
        return False
    return (
        is_possible
        and 0 <= record.revision <= MAX_REVISION
        and all(1 <= v.skip_percent <= 99 for v in record.levels)
        and all(-1 <= similarity <= 2 for similarity in similarities)
    )


def followed(spec: DiffusionCacheSpec, record: TuningStatus | None) -> TuningStatus | None:
    """What `build_serving_config` is given: the record in mode Auto, and nothing in the others."""
    return record if spec.tuning.mode is TuningMode.AUTO else None


def in_force(spec: DiffusionCacheSpec, record: TuningStatus | None, own_levels: Sequence[Level]) -> Tuning:
    """What the pods go by. `own_levels`: the model's own, which hold where neither spec nor record names any."""
    from diffcache_core.tuning.tuner import Tuning

    obeyed = followed(spec, record)
    capacity, levels = spec.cache.capacity, tuple(own_levels)
    if spec.cache.levels is not None:
        levels = tuple(Level(v.skip_percent, float(v.similarity)) for v in spec.cache.levels)
    if obeyed is not None and obeyed.levels:
        levels = tuple(Level(v.skip_percent, float(v.similarity)) for v in obeyed.levels)
    if obeyed is not None and obeyed.capacity:
        capacity = obeyed.capacity
    return Tuning(levels, bytes_of(capacity))


def goals_of(spec: DiffusionCacheSpec) -> Goals:
    """What the spec asks of the tuner."""
    from diffcache_core.tuning.tuner import Goals

    tuning = spec.tuning
    fixed = bytes_of(spec.cache.capacity)
    capacity = tuning.capacity
    return Goals(
        quality_target=tuning.quality.target_percent / 100,
        p95_seconds=None if tuning.latency is None else tuning.latency.p95_milliseconds / 1000,
        capacity_min=fixed if capacity is None else bytes_of(capacity.min),
        capacity_max=fixed if capacity is None else bytes_of(capacity.max),
        min_gain=0.0 if capacity is None else float(capacity.min_gain),
        min_similarity=0.0 if tuning.min_similarity is None else float(tuning.min_similarity),
    )


def record_decision(
    spec: DiffusionCacheSpec, record: TuningStatus, current: Tuning, decision: Decision, now: float
) -> TuningStatus:
    """The record after `decision`, which was made about `current` at `now` (seconds since the epoch).

    A decision that moves nothing only changes the message. In mode Auto one that does gets the next revision, and its
    window begins when `acknowledged`. In mode Recommend the record shows it, once, and nothing follows it.
    """
    capacity, levels = quantity_of(decision.tuning.capacity_bytes), level_texts(decision.tuning.levels)
    reported = f"{decision.reason}: {decision.message}"[:_MESSAGE_LENGTH]
    if decision.frozen or decision.tuning == current:
        return record.model_copy(update={"decision": reported})
    is_auto = spec.tuning.mode is TuningMode.AUTO
    is_known = record.capacity == capacity and record.levels == levels
    if not is_auto and is_known:
        return record.model_copy(update={"decision": reported})
    entry = TuningDecision(
        time=time_text(now),
        revision=record.revision + 1,
        reason=decision.reason if is_auto else RECOMMENDED,
        message=(decision.message if is_auto else reported)[:_MESSAGE_LENGTH],
        capacity=capacity,
        levels=levels,
        inputs=dict(decision.inputs),
    )
    return record.model_copy(
        update={
            "revision": entry.revision,
            "capacity": capacity,
            "levels": levels,
            "window_start": "" if is_auto else record.window_start,
            "decision": reported,
            "history": _prepended(entry, record.history),
        }
    )


def acknowledged(spec: DiffusionCacheSpec, record: TuningStatus, revisions: Sequence[int], now: float) -> TuningStatus:
    """The record with its window begun at `now`, once all of the ready pods' `revisions` are the one in force."""
    wanted = 0 if followed(spec, record) is None else record.revision
    if record.window_start or not revisions or any(revision != wanted for revision in revisions):
        return record
    since = time_text(now)
    return record.model_copy(update={"window_start": since, "measured_since": record.measured_since or since})


def changed_at(spec: DiffusionCacheSpec, record: TuningStatus) -> float | None:
    """When the tuning in force changed last, in seconds since the epoch; None: it never has."""
    obeyed = followed(spec, record)
    return seconds_of(obeyed.history[0].time) if obeyed is not None and obeyed.history else None


def level_texts(levels: Sequence[Level]) -> list[LevelStatus]:
    """Levels as a status holds them, by rising skip; similarities with at most four decimals."""
    return [LevelStatus(skip_percent=v.skip_percent, similarity=_decimal(v.similarity)) for v in sorted(levels)]


def time_text(seconds: float) -> str:
    """RFC 3339 in UTC of seconds since the epoch, rounded down to whole ones."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str) -> float | None:
    """Seconds since the epoch of an RFC 3339 time; None for anything else."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _told(decision: TuningDecision) -> str:
    return f"{decision.reason}: {decision.message}"


def _prepended(entry: TuningDecision, history: Sequence[TuningDecision]) -> list[TuningDecision]:
    return [entry, *history][:HISTORY]


def _decimal(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".") or "0"
