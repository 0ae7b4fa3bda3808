"""The two services. They convert, and hand over."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import structlog

from diffcache_core.generation import InvalidRequest, Violation
from diffcache_core.names import (
    DEFAULT_TENANT,
    NEGATIVE_TOKENS_DROPPED_METADATA,
    RESULT_METADATA,
    SIMILARITY_METADATA,
    STEPS_SKIPPED_METADATA,
    TENANT_METADATA,
    TOKENS_DROPPED_METADATA,
)
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_core.pb import diffcache_pb2_grpc as pb_grpc
from diffcache_serving.cache.found import Found
from diffcache_serving.cache.ledger import Target
from diffcache_serving.engine.engine import Run
from diffcache_serving.engine.loading import LoadedModel
from diffcache_serving.generate import Generation, Generator
from diffcache_serving.rpc.convert import entry_to_pb, generation_to_pb, parse_request, purge_target
from diffcache_serving.rpc.errors import Draining, cancel_safely

LIST_LIMIT, LIST_MAX = 100, 1000

LIST_BYTES = 3 * 2**20
"""Of a list of entries; a longer one ends early, and its total tells so. gRPC clients refuse messages of over 4 MiB
unless told otherwise, and the longest prompts of 1,000 entries take 16 MB."""

log = structlog.get_logger("diffcache.request")


class ImageGeneration(pb_grpc.ImageGenerationServicer):
    def __init__(self, generator: Generator, model: LoadedModel) -> None:
        self._generator, self._model = generator, model
        self.defaults = model.defaults  # replaced when the config changes
        self.draining = False

    async def Generate(self, message: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:
        request = self._parse(message, context)
        return self._answer(await self._generator.generate(request), context)

    async def GenerateStream(
        self,
        message: pb.GenerateStreamRequest,
        context: Any,
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        if not message.HasField("request"):
            raise InvalidRequest([Violation("request", "must not be empty: put a GenerateRequest into it")])
        request = self._parse(message.request, context)
        started: asyncio.Future[tuple[Run, Found]] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(
            self._generator.generate(request, on_run=lambda run, found: started.set_result((run, found)))
        )
        try:
            await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]  # mixed
            if started.done():
                run, found = started.result()
                yield _progress(found.k, request.steps, found.k)
                async for step in run.progress():
                    yield _progress(step, request.steps, found.k)
            yield pb.GenerateStreamResponse(generation=self._answer(await task, context))
        finally:
            await cancel_safely(task)

    def _parse(self, message: pb.GenerateRequest, context: Any) -> Any:
        if self.draining:
            raise Draining
        tenants = [str(value) for key, value in context.invocation_metadata() or () if key == TENANT_METADATA]
        if len(tenants) > 1:  # a caller's beside the proxy's: neither may win
            raise InvalidRequest([Violation(TENANT_METADATA, f"must be given once, is given {len(tenants)} times")])
        request = parse_request(message, tenants[0] if tenants else DEFAULT_TENANT, self.defaults)
        # Each RPC has a task, and so a context, of its own: the id stays bound for whoever logs the RPC's failure.
        structlog.contextvars.bind_contextvars(request_id=request.request_id)
        return request

    def _answer(self, generation: Generation, context: Any) -> pb.GenerateResponse:
        skipped = generation.steps_skipped
        trailers = [(RESULT_METADATA, generation.result.value), (STEPS_SKIPPED_METADATA, str(skipped))]
        if generation.similarity is not None:
            trailers.append((SIMILARITY_METADATA, f"{generation.similarity:.4f}"))
        dropped = {
            TOKENS_DROPPED_METADATA: generation.dropped_tokens,
            NEGATIVE_TOKENS_DROPPED_METADATA: generation.negative_dropped_tokens,
        }
        if any(dropped.values()):
            trailers += [(name, str(count)) for name, count in dropped.items()]
            log.debug(
                "a prompt was longer than the tokenizer holds",
                prompt_tokens_dropped=generation.dropped_tokens,
                negative_prompt_tokens_dropped=generation.negative_dropped_tokens,
            )
        context.set_trailing_metadata(tuple(trailers))
        log.info(
            "answered",
            tenant=generation.request.tenant,
            result=generation.result.value,
            steps=generation.request.steps,
            skipped=skipped,
            depth=generation.depth,
            similarity=generation.similarity and round(generation.similarity, 4),
            seconds=round(generation.total_seconds, 4),
        )
        return generation_to_pb(generation, self._model.name)


def _progress(step: int, steps: int, skipped: int) -> pb.GenerateStreamResponse:
    return pb.GenerateStreamResponse(progress=pb.Progress(step=step, steps=steps, steps_skipped=skipped))


class CacheAdmin(pb_grpc.CacheAdminServicer):
    def __init__(self, generator: Generator, model: LoadedModel, levels_source: str) -> None:
        self._generator, self._model, self.levels_source = generator, model, levels_source
        self.tuning = ""  # the record of a tuner in this process, as JSON

    async def GetStats(self, message: pb.GetStatsRequest, context: Any) -> pb.GetStatsResponse:
        metrics, cache = self._generator.metrics, self._generator.cache
        counts = {name: metrics.requests(name) for name in ("exact", "approximate", "miss", "bypass")}
        errors = metrics.requests("error")
        steps = metrics.value("diffcache_steps_total")
        skipped = metrics.value("diffcache_steps_skipped_total")
        totals = await cache.totals()
        return pb.GetStatsResponse(
            requests=sum(counts.values()) + errors,
            errors=errors,
            **counts,
            steps_run=steps - skipped,
            steps_skipped=skipped,
            steps_saved_ratio=skipped / steps if steps else 0.0,
            entries=totals.entries,
            states=totals.states,
            bytes=totals.bytes,
            capacity_bytes=cache.budget.bytes,
            pending_steps=math.ceil(self._generator.queue.pending_steps),
            model=self._model.name,
            device=str(self._model.diffusion.device),
            levels_source=self.levels_source,
            levels=[pb.Level(skip_percent=v.skip_percent, similarity=v.similarity) for v in cache.levels.table],
            tuning=self.tuning,
        )

    async def ListEntries(self, message: pb.ListEntriesRequest, context: Any) -> pb.ListEntriesResponse:
        if message.limit > LIST_MAX:
            raise InvalidRequest([Violation("limit", f"must be at most {LIST_MAX}, is {message.limit}")])
        target = Target(entry_id=message.entry_id, prompt_contains=message.prompt_contains, tenant=message.tenant)
        entries, total = await self._generator.cache.list_entries(target, message.limit or LIST_LIMIT)
        listed: list[pb.Entry] = []
        size = 0
        for entry in map(entry_to_pb, entries):
            size += entry.ByteSize()
            if listed and size > LIST_BYTES:
                break
            listed.append(entry)
        return pb.ListEntriesResponse(entries=listed, total=total)

    async def Purge(self, message: pb.PurgeRequest, context: Any) -> pb.PurgeResponse:
        target = purge_target(message)
        purged = await self._generator.cache.purge(target)
        if self._generator.feed:
            self._generator.feed.purged(target)
        log.info("purged", target=message.WhichOneof("target"), entries=purged.entries, bytes=purged.bytes)
        return pb.PurgeResponse(entries=purged.entries, bytes=purged.bytes)
