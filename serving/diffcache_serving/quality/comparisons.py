"""Measures the quality of the cache in the background: which requests are compared, when, and what is counted.

A comparison never makes a request fail, and delays it by at most one step. It keeps no state and records no hit. Texts
are only in memory, for WAIT_SECONDS at most.
"""

from __future__ import annotations

import asyncio
import time

import structlog
import torch

from diffcache_core.generation import GenerationRequest
from diffcache_core.names import similarity_bin
from diffcache_core.serving_config import QualityConfig
from diffcache_core.tuning.comparisons import WORST_COST, MeanCost, StepBudget, is_due, moments
from diffcache_serving.cache.cache import Cache
from diffcache_serving.engine.engine import Engine, EngineStopped
from diffcache_serving.engine.sources import scorer_folder
from diffcache_serving.metrics import Metrics
from diffcache_serving.quality.draw import Device, Flagged, Pair
from diffcache_serving.quality.plan import Arrival, Plan, make_plan
from diffcache_serving.quality.queue import QUEUE_BYTES, PlanQueue
from diffcache_serving.queueing import StepQueue
from diffcache_serving.scorer import ClipScorer
from diffcache_serving.values.errors import DeviceFailed, ModelError, ScorerError
from diffcache_serving.values.hot_config import HotConfig
from diffcache_serving.values.request_events import Answered, RequestListener

WAIT_SECONDS = 900.0
"""Maximum time that a comparison waits for idle time. With a higher value more comparisons of a busy period reach the
next idle one, but prompts and pictures stay in memory longer."""

PLAN_SECONDS = 5.0
"""Timeout of the search that plans a comparison after the answer. No request waits for it, but the searches must not
accumulate if the index hangs."""

TEXTS_KEPT = 8
"""Number of prompt embeddings that the scorer keeps. All pictures of one comparison have the same prompt."""

log = structlog.get_logger("diffcache.shadow")


class Comparisons:
    """Plans and runs comparisons. `configure` sets what to compare; `close` must be awaited."""

    def __init__(
        self,
        queue: StepQueue,
        engine: Engine,
        cache: Cache,
        metrics: Metrics,
        max_bytes: int = QUEUE_BYTES,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._engine, self._cache, self._metrics = engine, cache, metrics
        self._quality = QualityConfig()
        self.scorer: ClipScorer | None = None
        self._wait_seconds = wait_seconds
        self._budget, self._cost = StepBudget(), MeanCost()
        self._ran = 0  # steps that the current comparison has run
        self._plans = PlanQueue(max_bytes)
        self._planning: set[asyncio.Task[None]] = set()
        self._queue = queue
        self._device = Device(engine, queue.idle, self._patience, self._count_step)
        self.task = asyncio.create_task(self._work(), name="comparisons")

    async def apply(self, hot: HotConfig) -> None:
        await self.configure(hot.config.quality)

    async def configure(self, quality: QualityConfig) -> None:
        """Uses these settings from now on. If the scorer cannot be loaded, it logs that once and compares nothing."""
        before = self._quality
        if quality.scorer != before.scorer:
            self.scorer = None
            if quality.scorer:
                self.scorer = await asyncio.to_thread(self._load, quality.scorer)
        self._quality = quality  # set last, so that a second call after a failure loads the scorer again
        if quality.shadow_percent and not quality.scorer and quality != before:
            log.warning("quality is not measured: there is no scorer for this model, set tuning.quality.scorer")

    def arrived(self, request: GenerationRequest) -> RequestListener:
        """Decides from the request's id alone whether it is compared, so that its result cannot influence that."""
        share = self._cost.share(self._percent) if self.scorer is not None else 0.0
        due = is_due(request.request_id, share) and self._budget.covers(
            WORST_COST * self._work_of(request, request.steps)
        )
        return _Compared(self, Arrival(due, time.time()))

    def answered(self, arrival: Arrival, answered: Answered) -> None:
        """Plans a comparison for an answered request if it is due. Returns at once and never raises."""
        request = answered.request
        self._budget.earn(self._work_of(request, request.steps), self._percent)
        if arrival.is_due:
            task = asyncio.create_task(self._plan(arrival, answered))
            self._planning.add(task)
            task.add_done_callback(self._planning.discard)

    async def planned(self) -> None:
        """Returns when every comparison that is due so far is queued or dropped."""
        await asyncio.gather(*self._planning)

    async def settle(self) -> None:
        """Returns when every comparison that is due so far has run or is dropped."""
        await self.planned()
        await self._plans.join()

    async def close(self) -> None:
        """Gives up all comparisons, both waiting and running."""
        tasks = [self.task, *self._planning]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._count("dropped", self._plans.drain())

    @property
    def _percent(self) -> int:
        return self._quality.shadow_percent

    def _work_of(self, request: GenerationRequest, steps: int) -> float:
        """Returns the work of `steps` steps of a request, in steps at the model's own size."""
        return steps * self._queue.cost(request.width * request.height)

    def _patience(self, request: GenerationRequest) -> float:
        """Returns the seconds after which a comparison may run a step between steps of requests.

        So it takes no more than its share of the device's time.
        """
        return self._queue.seconds_per_step * self._work_of(request, 1) * 100 / max(1, self._percent)

    def _load(self, source: str) -> ClipScorer | None:
        try:
            return ClipScorer(scorer_folder(source), self._engine.model.device, TEXTS_KEPT)
        except (ScorerError, ModelError, torch.OutOfMemoryError) as error:
            log.warning("quality is not measured: the scorer cannot be used", error=str(error))
            return None

    async def _plan(self, arrival: Arrival, answered: Answered) -> None:
        try:
            async with asyncio.timeout(PLAN_SECONDS):
                plan = await make_plan(self._cache, answered, arrival.at, self._wait_seconds)
        except Exception as error:  # an outage of the index raises many types
            self._fail(error)
            return
        self._cost.add(0.0 if plan is None else plan.steps / plan.request.steps)
        if plan is None:
            return
        if not self._budget.take(self._work_of(plan.request, plan.steps)):
            self._count("dropped")
        elif not self._plans.put(plan):
            self._budget.give_back(self._work_of(plan.request, plan.steps))
            self._count("dropped")

    async def _work(self) -> None:
        while True:
            plan = await self._plans.get()
            self._ran = 0
            try:
                await self._compare(plan)
            finally:
                self._budget.give_back(self._work_of(plan.request, plan.steps - self._ran))
                self._plans.done()

    async def _compare(self, plan: Plan) -> None:
        scorer = self.scorer
        if scorer is None or time.monotonic() >= plan.deadline:
            self._count("dropped")
            return
        try:
            async with asyncio.timeout(plan.deadline - time.monotonic()):
                pairs = await self._device.compare(plan, scorer)
            for pair in pairs:
                self._count_pair(pair)
            self._count("compared")
        except (TimeoutError, EngineStopped, DeviceFailed):
            self._count("dropped")
        except Flagged:
            self._count("failed")
        except Exception as error:
            self._fail(error)

    def _count_step(self) -> None:
        self._ran += 1
        self._metrics.shadow_steps.inc()

    def _count_pair(self, pair: Pair) -> None:
        skip, similarity = str(pair.level.percent), similarity_bin(pair.level.similarity)
        self._metrics.quality_pairs.labels(skip, similarity).inc()
        for moment, value in moments(pair.cached, pair.uncached).items():
            self._metrics.quality_sum.labels(skip, similarity, moment).inc(value)

    def _count(self, outcome: str, number: int = 1) -> None:
        self._metrics.shadow_runs.labels(outcome).inc(number)

    def _fail(self, error: Exception) -> None:
        self._count("failed")
        log.warning("a comparison failed", error=repr(error))


class _Compared(RequestListener):
    def __init__(self, comparisons: Comparisons, arrival: Arrival) -> None:
        self._comparisons, self._arrival = comparisons, arrival

    def answered(self, answered: Answered) -> None:
        self._comparisons.answered(self._arrival, answered)
