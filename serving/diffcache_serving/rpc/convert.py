"""Converts protobuf messages to domain values and back."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from diffcache_core.cache.states import Entry
from diffcache_core.generation import CacheMode, ImageFormat, InvalidRequest, Result, Violation
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_serving.cache.ledger import Target
from diffcache_serving.generate import Generation
from diffcache_serving.service.cache_service import Stats
from diffcache_serving.service.draft import RequestDraft

_MODES = {
    pb.CACHE_MODE_UNSPECIFIED: CacheMode.DEFAULT,
    pb.CACHE_MODE_DEFAULT: CacheMode.DEFAULT,
    pb.CACHE_MODE_BYPASS: CacheMode.BYPASS,
    pb.CACHE_MODE_REFRESH: CacheMode.REFRESH,
    pb.CACHE_MODE_READ_ONLY: CacheMode.READ_ONLY,
}
_FORMATS = {
    pb.IMAGE_FORMAT_UNSPECIFIED: ImageFormat.PNG,
    pb.IMAGE_FORMAT_PNG: ImageFormat.PNG,
    pb.IMAGE_FORMAT_WEBP: ImageFormat.WEBP,
    pb.IMAGE_FORMAT_JPEG: ImageFormat.JPEG,
}
_RESULTS = {
    Result.EXACT: pb.RESULT_EXACT,
    Result.APPROXIMATE: pb.RESULT_APPROXIMATE,
    Result.MISS: pb.RESULT_MISS,
    Result.BYPASS: pb.RESULT_BYPASS,
}
_PB_FORMATS = {
    ImageFormat.PNG: pb.IMAGE_FORMAT_PNG,
    ImageFormat.WEBP: pb.IMAGE_FORMAT_WEBP,
    ImageFormat.JPEG: pb.IMAGE_FORMAT_JPEG,
}


def draft_of(message: pb.GenerateRequest) -> RequestDraft:
    """Returns the draft for a message. An unknown cache mode or format becomes a violation in the draft."""
    violations = []
    if message.cache_mode not in _MODES:
        violations.append(
            Violation("cache_mode", f"{message.cache_mode} is not a cache mode; known are " + ", ".join(CacheMode))
        )
    if message.format not in _FORMATS:
        violations.append(
            Violation("format", f"{message.format} is not an image format; known are " + ", ".join(ImageFormat))
        )
    return RequestDraft(
        prompt=message.prompt,
        negative_prompt=message.negative_prompt,
        seed=message.seed if message.HasField("seed") else None,
        steps=message.steps if message.HasField("steps") else None,
        guidance=message.guidance if message.HasField("guidance") else None,
        width=message.width if message.HasField("width") else None,
        height=message.height if message.HasField("height") else None,
        format=_FORMATS.get(message.format, ImageFormat.PNG),
        cache_mode=_MODES.get(message.cache_mode, CacheMode.DEFAULT),
        min_similarity=message.min_similarity if message.HasField("min_similarity") else None,
        max_skip=message.max_skip_percent if message.HasField("max_skip_percent") else None,
        request_id=message.request_id,
        violations=violations,
    )


def generation_to_pb(generation: Generation, model: str) -> pb.GenerateResponse:
    request = generation.request
    return pb.GenerateResponse(
        image=generation.image,
        format=_PB_FORMATS[request.format],
        result=_RESULTS[generation.result],
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
