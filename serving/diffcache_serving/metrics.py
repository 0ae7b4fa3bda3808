"""The metrics for Prometheus. No label takes its value from a request: label values are listed here, or there is one
per process."""

from __future__ import annotations

import time
from collections.abc import Container, Mapping
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from diffcache_core.cache.resume import Levels
from diffcache_core.generation import GenerationRequest, Result
from diffcache_core.names import CONFIG_PARTS, SHADOW_OUTCOMES, similarity_bins
from diffcache_serving.cache.events import Drop, Eviction, Operation, Part
from diffcache_serving.values.hot_config import HotConfig
from diffcache_serving.values.request_events import Answered, RequestListener

disable_created_metrics()  # they are a second series for each counter, which nothing here reads

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
_SIMILARITIES = (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0)
_RATIOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

PHASES = ("queue", "encode", "look_up", "load", "denoise", "decode", "compress")
DEVICE_CALLS = ("decode", "encode", "spare", "start", "step")
NOT_FINITE_PARTS = ("encoding", "key", "latent", "picture")


class Metrics:
    """All metrics of one serving process, in a registry of their own."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, text, labels, namespace="diffcache", registry=self.registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, text, labels, namespace="diffcache", registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()) -> Histogram:
            return Histogram(name, text, labels, namespace="diffcache", buckets=buckets, registry=self.registry)

        self._requests = counter("requests", "Requests answered, by result.", ("model", "result"))
        self._duration = histogram(
            "request_duration_seconds",
            "Time from the parsed request to the encoded picture.",
            _SECONDS,
            ("model", "result"),
        )
        self.steps = counter("steps", "Denoising steps of all answered requests, run or skipped.")
        self.steps_run = counter("steps_run", "Denoising steps that ran.")
        self.steps_skipped = counter("steps_skipped", "Denoising steps that the cache saved.")
        self.similarity = histogram(
            "similarity", "Cosine to the entry that an APPROXIMATE request resumed from.", _SIMILARITIES
        )
        self.skip = histogram("skip_ratio", "Share of its steps that a request skipped; misses are 0.", _RATIOS)
        self._phase = histogram("phase_seconds", "Time of the phases of a request.", _SECONDS, ("phase",))
        self.step_seconds = histogram(
            "step_seconds",
            "Time of a denoiser call, divided by its work in steps at the model's own size.",
            _SECONDS,
        )
        self.device_seconds = counter("device_seconds", "Time of denoiser calls: its rate is the device's busy share.")
        self.start_time = gauge("start_time_seconds", "When this process began, in seconds since the epoch.")
        self.start_time.set(time.time())
        self.entries = gauge("entries", "Cached generations.")
        self.cache_bytes = gauge("cache_bytes", "Bytes allocated by states.")
        self.capacity_bytes = gauge("capacity_bytes", "Bytes that states may allocate.")
        self.pending_steps = gauge(
            "pending_steps", "Work queued and running, in denoising steps at the model's own size."
        )
        self.queue_max_steps = gauge("queue_max_steps", "Pending steps from which on a request is refused.")
        self.queue_depth = gauge("queue_depth", "Requests in the server, queued and running.")
        self.evictions = counter("evictions", "States that left the cache.", ("reason",))
        self.states_dropped = counter("states_dropped", "States that were not kept, or were lost.", ("reason",))
        self.states_undeleted = gauge(
            "states_undeleted", "States that left the cache, and whose bytes the store has not deleted yet."
        )
        self.not_finite = counter(
            "not_finite",
            "Requests with NaN or infinity in what the model gave: in the key they miss, else they fail.",
            ("part",),
        )
        self.out_of_memory = counter(
            "out_of_memory",
            "Calls of the device that ran out of memory; a step is then made with fewer requests.",
            ("call",),
        )
        self.index_errors = counter(
            "index_errors", "Failures of index, ledger or store; a look-up then is a miss.", ("op",)
        )
        self.look_ups_skipped = counter("look_ups_skipped", "Look-ups not made because the last ones failed.")
        self.inconclusive = counter("searches_inconclusive", "Look-ups in which an unseen entry could have saved more.")
        self.index_up = gauge("index_up", "1 if the last operation on the index succeeded, 0 if it failed.")
        self.ledger_up = gauge("ledger_up", "1 if the last operation on the ledger succeeded, 0 if it failed.")
        self.store_up = gauge("store_up", "0 if the last operation on states in a bucket failed, else 1.")
        self.model_info = gauge(
            "model_info", "Always 1; the fingerprint is of weights and configs.", ("model", "fingerprint")
        )
        self._config_info = gauge("config_info", "Always 1; the revision of the config taken over last.", ("revision",))
        self._config_pending = gauge(
            "config_pending", "1 while that part of the newest config has not been taken over.", ("part",)
        )
        self.build_info = gauge("build_info", "Always 1; the labels say what runs.", ("version", "model", "device"))
        self._level_similarity = gauge(
            "level_similarity", "Levels in force: from this similarity on `skip` percent may be skipped.", ("skip",)
        )
        self._level_served = gauge(
            "level_served",
            "Always 1: requests in this bin of similarity may skip `skip` percent and no more.",
            ("skip", "similarity"),
        )
        self.tuning_revision = gauge("tuning_revision", "Of the tuner's decision that is followed; 0: the manifest's.")
        self.quality_pairs = counter(
            "quality_pairs",
            "Comparisons of a picture resumed at `skip` percent with the same one drawn without the cache.",
            ("skip", "similarity"),
        )
        self.quality_sum = counter(
            "quality_sum",
            "Over those pairs: sums of q_c (resumed), q_u (without the cache), their squares and their product.",
            ("skip", "similarity", "moment"),
        )
        self.shadow_runs = counter("shadow_runs", "Comparisons that were due, by what became of them.", ("outcome",))
        self.shadow_steps = counter("shadow_steps", "Denoising steps that comparisons took; in no other count.")
        self.shadow_cache_steps = counter(
            "shadow_cache_steps", "Steps asked of a simulated cache of `multiple` times the capacity.", ("multiple",)
        )
        self.shadow_cache_skipped = counter("shadow_cache_steps_skipped", "Steps it would have saved.", ("multiple",))
        self.shadow_saved_ratio = gauge(
            "shadow_steps_saved_ratio",
            "Steps saved ratio of a simulated cache of `multiple` times the capacity, over the last requests.",
            ("multiple",),
        )
        self.shadow_cache_dropped = counter(
            "shadow_cache_events_dropped", "Events of requests that the simulated caches did not see."
        )
        self.config_attempted(hanging=())
        for outcome in SHADOW_OUTCOMES:
            self.shadow_runs.labels(outcome)
        for result in [*Result, "error"]:  # so that Prometheus has a rate before the first event
            self._requests.labels(model, result.lower())
        self._up = {"index": self.index_up, "ledger": self.ledger_up, "store": self.store_up}
        for labelled, values in (
            (self.evictions, get_args(Eviction)),
            (self.states_dropped, get_args(Drop)),
            (self.not_finite, NOT_FINITE_PARTS),
            (self.out_of_memory, DEVICE_CALLS),
            (self.index_errors, get_args(Operation)),
        ):
            for value in values:
                labelled.labels(value)

    def config_taken_over(self, revision: str, tuning_revision: int) -> None:
        """Records that a config is completely in force."""
        self._config_info.clear()  # keep only the current revision
        self._config_info.labels(revision).set(1)
        self.tuning_revision.set(tuning_revision)

    def config_attempted(self, hanging: Container[str]) -> None:
        """Records that all parts of the newest config are in force, except those in `hanging`."""
        for part in CONFIG_PARTS:
            self._config_pending.labels(part).set(part in hanging)

    async def apply(self, hot: HotConfig) -> None:
        self.levels_in_force(hot.levels)
        self.queue_max_steps.set(hot.config.queue_max_steps)

    def levels_in_force(self, levels: Levels) -> None:
        """Exports the current levels. If a level begins inside a bin, the bin has requests of this level and of the one
        below, so it counts for both."""
        self._level_similarity.clear()
        self._level_served.clear()
        ends = [level.similarity for level in levels.table[1:]] + [float("inf")]
        for level, end in zip(levels.table, ends, strict=False):
            self._level_similarity.labels(level.skip_percent).set(level.similarity)
            for similarity in similarity_bins(level.similarity, end):
                self._level_served.labels(level.skip_percent, similarity).set(1)

    def answered(self, result: Result, seconds: Mapping[str, float], total: float, steps: int, skipped: int) -> None:
        """Records an answered request. `seconds` is by phase."""
        self._requests.labels(self._model, result.lower()).inc()
        self._duration.labels(self._model, result.lower()).observe(total)
        self.steps.inc(steps)
        self.steps_run.inc(steps - skipped)
        self.steps_skipped.inc(skipped)
        self.skip.observe(skipped / steps)
        for phase in PHASES:
            self._phase.labels(phase).observe(seconds[phase])

    def failed(self) -> None:
        self._requests.labels(self._model, "error").inc()

    def arrived(self, request: GenerationRequest) -> RequestListener:
        return _Counting(self)

    # ---- cache.events.CacheEvents -----------------------------------------------------------------------------------

    def part_answers(self, part: Part, answers: bool) -> None:
        self._up[part].set(answers)

    def operation_failed(self, operation: Operation) -> None:
        self.index_errors.labels(operation).inc()

    def look_up_skipped(self) -> None:
        self.look_ups_skipped.inc()

    def search_inconclusive(self) -> None:
        self.inconclusive.inc()

    def resumed(self, similarity: float) -> None:
        self.similarity.observe(similarity)

    def dropped(self, reason: Drop, states: int) -> None:
        self.states_dropped.labels(reason).inc(states)

    def evicted(self, reason: Eviction, states: int) -> None:
        self.evictions.labels(reason).inc(states)

    def holds(self, entries: int, state_bytes: int) -> None:
        self.entries.set(entries)
        self.cache_bytes.set(state_bytes)

    def may_hold(self, state_bytes: float) -> None:
        self.capacity_bytes.set(state_bytes)

    def undeleted(self, states: int) -> None:
        self.states_undeleted.set(states)

    # ---- for CacheAdmin ---------------------------------------------------------------------------------------------

    def requests(self, result: str) -> int:
        """Returns how many requests ended with `result`, which is in lower case."""
        return self.value("diffcache_requests_total", model=self._model, result=result)

    def value(self, name: str, **labels: str) -> int:
        return int(self.registry.get_sample_value(name, labels) or 0)


class _Counting(RequestListener):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def not_finite(self, part: str) -> None:
        self._metrics.not_finite.labels(part).inc()

    def answered(self, answered: Answered) -> None:
        found, steps = answered.found, answered.request.steps
        self._metrics.answered(found.result, answered.seconds, answered.total_seconds, steps, found.k)
