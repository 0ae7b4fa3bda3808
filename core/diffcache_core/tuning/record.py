"""The tuner's record and how decisions change it. A cluster keeps it in `status.tuning`, `diffcache up` in a file.
Pure.

The record never changes the spec. It belongs to one spec, by a digest: after a change of the spec, the spec's values
hold again.
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
"""The file in the data folder in which `diffcache up` keeps the record."""

HISTORY = 10
"""Number of decisions that are kept: as many as the schema of the status allows."""

MAX_REVISION = 2**53 - 1
"""Pods export the revision as a float, which is exact up to this number."""

RECOMMENDED = "Recommended"
"""The reason of a decision in mode Recommend, which nothing follows; its own reason is in the message."""

_MESSAGE_LENGTH = 1024  # as the schema has it
_DIGEST_DIGITS = 12  # hexadecimal: enough to distinguish the specs of one resource


def based_on(spec: DiffusionCacheSpec) -> str:
    """Returns a digest of the values from which the tuner starts and of its goals. A change of anything else, such as a
    volume's size, keeps the record. Defaults are left out, so that a new field of a later version keeps it, too."""
    parts = {
        "measured": measured_of(spec),  # levels belong to one model
        "cache": spec.cache.model_dump(mode="json", include={"capacity", "levels"}, exclude_defaults=True),
        "tuning": spec.tuning.model_dump(mode="json", exclude_defaults=True),
    }
    return sha256_of_json(parts)[:_DIGEST_DIGITS]


def measured_of(spec: DiffusionCacheSpec) -> str:
    """Returns a digest of what comparisons depend on: the model, the kind of state and the scorer. After a change of
    goals or mode the old comparisons still count."""
    identity = {"source", "revision", "scheduler", "dtype"}
    parts = {
        "model": spec.model.model_dump(mode="json", include=identity, exclude_defaults=True),
        "state": spec.cache.state.value,
        "scorer": spec.tuning.quality.scorer,
    }
    return sha256_of_json(parts)[:_DIGEST_DIGITS]


def record_for(spec: DiffusionCacheSpec, record: TuningStatus | None, now: float) -> TuningStatus:
    """Returns `record` if it belongs to `spec`; else a new, empty one, so that the spec's values hold.

    Comparisons still count if `measured_of` is the same. The revision continues to rise, so figures of the old record
    cannot be mistaken for those of the new one. `now`: seconds since the epoch.
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
    """Returns whether pods and tuner can use the record. A user may have edited the status, or a backup may have
    restored only a part of it."""
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
    """Returns the record that pods must follow: `record` in mode Auto, else None."""
    return record if spec.tuning.mode is TuningMode.AUTO else None


def in_force(spec: DiffusionCacheSpec, record: TuningStatus | None, own_levels: Sequence[Level]) -> Tuning:
    """Returns the tuning that the pods use. `own_levels`: the model's own, used if neither spec nor record has any."""
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
    """Returns the goals that the spec sets for the tuner."""
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
    """Returns the record after `decision`, which was made about `current` at `now` (seconds since the epoch).

    A decision that moves nothing only changes the text. In mode Auto a decision that moves something gets the next
    revision, and its window begins when it is `acknowledged`. In mode Recommend the record shows it once, and nothing
    follows it.
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
    """Returns the record with its window begun at `now` if all `revisions` of the ready pods are the one in force; else
    the record unchanged. `now`: seconds since the epoch."""
    wanted = 0 if followed(spec, record) is None else record.revision
    if record.window_start or not revisions or any(revision != wanted for revision in revisions):
        return record
    since = time_text(now)
    return record.model_copy(update={"window_start": since, "measured_since": record.measured_since or since})


def changed_at(spec: DiffusionCacheSpec, record: TuningStatus) -> float | None:
    """Returns when the tuning in force changed last, in seconds since the epoch; None if it never has."""
    obeyed = followed(spec, record)
    return seconds_of(obeyed.history[0].time) if obeyed is not None and obeyed.history else None


def level_texts(levels: Sequence[Level]) -> list[LevelStatus]:
    """Returns levels as in a status, by rising skip, with similarities of at most four decimals."""
    return [LevelStatus(skip_percent=v.skip_percent, similarity=_decimal(v.similarity)) for v in sorted(levels)]


def time_text(seconds: float) -> str:
    """Returns the RFC 3339 text in UTC of seconds since the epoch, rounded down to whole seconds."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(text: str) -> float | None:
    """Returns the seconds since the epoch of an RFC 3339 time; None for any other text."""
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
