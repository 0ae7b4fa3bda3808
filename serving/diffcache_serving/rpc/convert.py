"""Converts protobuf messages to domain values and back."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from diffcache_core.cache.states import Entry
from diffcache_core.generation import CacheMode, ImageFormat, InvalidRequest, Violation
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_serving.cache.ledger import Target
from diffcache_serving.generate import Generation
from diffcache_serving.service.cache_service import Stats
from diffcache_serving.service.draft import RequestDraft

_ENUMS: dict[str, tuple[type[StrEnum], str]] = {
    "format": (ImageFormat, "an image format"),
    "cache_mode": (CacheMode, "a cache mode"),
}


def draft_of(message: pb.GenerateRequest) -> RequestDraft:
    """The fields that the message sets, under the same names. An unknown mode or format becomes a violation."""
    given: dict[str, Any] = {}
    violations = []
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.enum_type is not None:
            kind, what = _ENUMS[field.name]
            known = field.enum_type.values_by_number.get(value)
            if known is None:
                violations.append(Violation(field.name, f"{value} is not {what}; known are " + ", ".join(kind)))
            elif value:  # 0 is UNSPECIFIED
                prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
                given[field.name] = kind(known.name.removeprefix(prefix))
        elif not field.has_presence or message.HasField(field.name):
            given[field.name] = value
    return RequestDraft(**given, violations=violations)


def generation_to_pb(generation: Generation, model: str) -> pb.GenerateResponse:
    request = generation.request
    return pb.GenerateResponse(
        image=generation.image,
        format=f"IMAGE_FORMAT_{request.format}",
        result=f"RESULT_{generation.result}",
        similarity=generation.similarity,
        steps=request.steps,
        steps_skipped=generation.steps_skipped,
        depth=generation.depth,
        parent_entry_id=generation.parent,
        entry_id=generation.entry,
        seed=request.seed,
        seconds=pb.Seconds(total=generation.total_seconds, **generation.seconds),
        request_id=request.request_id,
        model=model,
        flagged=generation.flagged,
        prompt_tokens_dropped=generation.dropped_tokens,
        negative_prompt_tokens_dropped=generation.negative_dropped_tokens,
    )


def stats_to_pb(stats: Stats, model: str, device: str) -> pb.GetStatsResponse:
    errors = stats.requests["error"]
    counts = {name: count for name, count in stats.requests.items() if name != "error"}
    return pb.GetStatsResponse(
        requests=sum(stats.requests.values()),
        errors=errors,
        **counts,
        steps_run=stats.steps - stats.steps_skipped,
        steps_skipped=stats.steps_skipped,
        steps_saved_ratio=stats.steps_saved_ratio,
        entries=stats.held.entries,
        states=stats.held.states,
        bytes=stats.held.bytes,
        capacity_bytes=stats.capacity_bytes,
        pending_steps=stats.pending_steps,
        model=model,
        device=device,
        levels_source=stats.levels_source,
        levels=[pb.Level(skip_percent=v.skip_percent, similarity=v.similarity) for v in stats.levels.table],
        tuning=stats.tuning,
    )


def entry_to_pb(entry: Entry) -> pb.Entry:
    created = Timestamp()
    created.FromNanoseconds(int(entry.created * 1e9))
    return pb.Entry(
        id=entry.id,
        prompt=entry.prompt,
        tenant=entry.tenant,
        model=entry.model,
        seed=entry.seed,
        steps=entry.steps,
        depth=entry.depth,
        parent_entry_id=entry.parent,
        uses=entry.uses,
        created=created,
        states=[
            pb.State(id=s.id, kind=s.kind.value, step=s.k, bytes=s.bytes, score=s.score, uses=s.uses)
            for s in entry.states
        ],
    )


def purge_target(message: pb.PurgeRequest) -> Target:
    """Returns the target of a purge.

    Raises InvalidRequest if the message names no target: that must not mean "purge everything".
    """
    which = message.WhichOneof("target")
    if which is None or not getattr(message, which):
        raise InvalidRequest(
            [Violation(which or "target", "name what to purge: a prompt, tenant, model, entry_id, or all = true")]
        )
    return Target() if which == "all" else Target(**{which: getattr(message, which)})
