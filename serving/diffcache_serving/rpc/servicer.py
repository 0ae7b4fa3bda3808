"""The two gRPC services. They only convert messages and call the service layer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from diffcache_core.generation import GenerationRequest, InvalidRequest, Violation
from diffcache_core.names import (
    NEGATIVE_TOKENS_DROPPED_METADATA,
    RESULT_METADATA,
    SIMILARITY_METADATA,
    STEPS_SKIPPED_METADATA,
    TENANT_METADATA,
    TOKENS_DROPPED_METADATA,
)
from diffcache_core.pb import diffcache_pb2 as pb
from diffcache_core.pb import diffcache_pb2_grpc as pb_grpc
from diffcache_serving.cache.ledger import Target
from diffcache_serving.generate import Generation
from diffcache_serving.rpc.convert import draft_of, entry_to_pb, generation_to_pb, purge_target, stats_to_pb
from diffcache_serving.service.cache_service import CacheService
from diffcache_serving.service.image_service import ImageService, Progress

LIST_BYTES = 3 * 2**20
"""Maximum size of a list of entries, in bytes. A longer list is cut; the client sees that from its total. gRPC clients
refuse messages over 4 MiB by default, and 1,000 entries with the longest prompts take 16 MB."""


class ImageGeneration(pb_grpc.ImageGenerationServicer):
    def __init__(self, images: ImageService) -> None:
        self._images = images

    async def Generate(self, message: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:
        return self._answer(await self._images.generate(self._accept(message, context)), context)

    async def GenerateStream(
        self,
        message: pb.GenerateStreamRequest,
        context: Any,
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        if not message.HasField("request"):
            raise InvalidRequest([Violation("request", "must not be empty: put a GenerateRequest into it")])
        request = self._accept(message.request, context)
        async with aclosing(self._images.stream(request)) as events:
            async for event in events:
                if isinstance(event, Progress):
                    progress = pb.Progress(step=event.step, steps=event.steps, steps_skipped=event.skipped)
                    yield pb.GenerateStreamResponse(progress=progress)
                else:
                    yield pb.GenerateStreamResponse(generation=self._answer(event, context))

    def _accept(self, message: pb.GenerateRequest, context: Any) -> GenerationRequest:
        tenants = [str(value) for key, value in context.invocation_metadata() or () if key == TENANT_METADATA]
        return self._images.accept(draft_of(message), tenants)

    def _answer(self, generation: Generation, context: Any) -> pb.GenerateResponse:
        trailers = [
            (RESULT_METADATA, generation.result.value),
            (STEPS_SKIPPED_METADATA, str(generation.steps_skipped)),
        ]
        if generation.similarity is not None:
            trailers.append((SIMILARITY_METADATA, f"{generation.similarity:.4f}"))
        dropped = {
            TOKENS_DROPPED_METADATA: generation.dropped_tokens,
            NEGATIVE_TOKENS_DROPPED_METADATA: generation.negative_dropped_tokens,
        }
        if any(dropped.values()):
            trailers += [(name, str(count)) for name, count in dropped.items()]
        context.set_trailing_metadata(tuple(trailers))
        return generation_to_pb(generation, self._images.model_name)


class CacheAdmin(pb_grpc.CacheAdminServicer):
    def __init__(self, cache: CacheService, model_name: str, device: str) -> None:
        self._cache, self._model_name, self._device = cache, model_name, device

    async def GetStats(self, message: pb.GetStatsRequest, context: Any) -> pb.GetStatsResponse:
        return stats_to_pb(await self._cache.stats(), self._model_name, self._device)

    async def ListEntries(self, message: pb.ListEntriesRequest, context: Any) -> pb.ListEntriesResponse:
        target = Target(entry_id=message.entry_id, prompt_contains=message.prompt_contains, tenant=message.tenant)
        entries, total = await self._cache.list_entries(target, message.limit)
        listed: list[pb.Entry] = []
        size = 0
        for entry in map(entry_to_pb, entries):
            size += entry.ByteSize()
            if listed and size > LIST_BYTES:
                break
            listed.append(entry)
        return pb.ListEntriesResponse(entries=listed, total=total)

    async def Purge(self, message: pb.PurgeRequest, context: Any) -> pb.PurgeResponse:
        purged = await self._cache.purge(purge_target(message), message.WhichOneof("target") or "")
        return pb.PurgeResponse(entries=purged.entries, bytes=purged.bytes)
