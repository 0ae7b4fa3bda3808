"""Makes pictures for callers of any protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import structlog

from diffcache_core.generation import GenerationRequest
from diffcache_serving.engine.engine import Run
from diffcache_serving.generate import Generation, Generator
from diffcache_serving.service.draft import RequestDraft, complete, tenant_of
from diffcache_serving.service.errors import Draining
from diffcache_serving.values.defaults import ModelDefaults
from diffcache_serving.values.found import Found
from diffcache_serving.values.hot_config import HotConfig

log = structlog.get_logger("diffcache.request")


@dataclass(frozen=True)
class Progress:
    """The progress of one run."""

    step: int  # steps done or skipped so far
    steps: int
    skipped: int


class ImageService:
    def __init__(self, generator: Generator, model_name: str, defaults: ModelDefaults) -> None:
        self._generator, self.model_name = generator, model_name
        self.defaults = defaults  # replaced when the config changes
        self.draining = False  # once True, no request is accepted

    async def apply(self, hot: HotConfig) -> None:
        self.defaults = hot.defaults

    def accept(self, draft: RequestDraft, tenants: Sequence[str]) -> GenerationRequest:
        """Returns the complete request for a draft. `tenants` are the tenants named in the call's metadata.

        From now on the log lines of this task carry the request's id. Raises Draining, or InvalidRequest with every
        wrong field.
        """
        if self.draining:
            raise Draining
        request = complete(draft, tenant_of(tenants), self.defaults)
        # Each call has its own task and so its own context. The id stays bound, so that a failure of the call is
        # logged with it.
        structlog.contextvars.bind_contextvars(request_id=request.request_id)
        return request

    async def generate(self, request: GenerationRequest) -> Generation:
        """Makes one picture. Raises what Generator.generate raises."""
        return _logged(await self._generator.generate(request))

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Progress | Generation]:
        """Yields the progress at every step, then the picture. Closing the generator cancels the run."""
        started: asyncio.Future[tuple[Run, Found]] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(
            self._generator.generate(request, on_run=lambda run, found: started.set_result((run, found)))
        )
        try:
            await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]  # mixed
            if started.done():
                run, found = started.result()
                yield Progress(found.k, request.steps, found.k)
                async for step in run.progress():
                    yield Progress(step, request.steps, found.k)
            yield _logged(await task)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _logged(generation: Generation) -> Generation:
    if generation.dropped_tokens or generation.negative_dropped_tokens:
        log.debug(
            "a prompt was longer than the tokenizer holds",
            prompt_tokens_dropped=generation.dropped_tokens,
            negative_prompt_tokens_dropped=generation.negative_dropped_tokens,
        )
    log.info(
        "answered",
        tenant=generation.request.tenant,
        result=generation.result.value,
        steps=generation.request.steps,
        skipped=generation.steps_skipped,
        depth=generation.depth,
        similarity=generation.similarity and round(generation.similarity, 4),
        seconds=round(generation.total_seconds, 4),
    )
    return generation
