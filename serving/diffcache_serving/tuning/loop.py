"""The tuner of a process without a cluster. It reads its own counters once a minute.

It writes a decision first into the record and then into the config file, which this process watches. So a decision
takes effect in the same way as in a cluster. A crash between the two writes loses nothing, because `diffcache up`
writes the config from the record.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from diffcache_core.cache.resume import Level
from diffcache_core.private_files import write_private
from diffcache_core.resource.spec import DiffusionCacheSpec, TuningMode
from diffcache_core.resource.status import TuningStatus
from diffcache_core.resource_to_config import effective_cache
from diffcache_core.serving_config import ServingConfig
from diffcache_core.tuning.record import (
    acknowledged,
    changed_at,
    followed,
    goals_of,
    in_force,
    record_decision,
    record_for,
    seconds_of,
)
from diffcache_core.tuning.tuner import Batch, evidence_start, tune
from diffcache_serving.config_file import read_config_file
from diffcache_serving.tuning.counters import Counters, batch_between, window_between
from diffcache_serving.tuning.record_file import read_record, write_record

LOOK_SECONDS = 60.0
"""Time between two looks. A decision needs hundreds of requests, so a shorter time gives no earlier decision."""

log = structlog.get_logger("diffcache.tuning")


class LocalTuner:
    """Looks at the counters regularly and decides. Each look runs in a thread; then `on_record(record)` is called on
    the event loop."""

    def __init__(
        self,
        spec: DiffusionCacheSpec,
        config_file: Path,
        folder: Path,
        registry: CollectorRegistry,
        own_levels: Sequence[Level],
        on_record: Callable[[TuningStatus], None] = lambda record: None,
    ) -> None:
        self._spec, self._config_file, self._folder = spec, config_file, folder
        self._registry, self._own_levels, self._on_record = registry, own_levels, on_record
        self.record = TuningStatus()
        self._began: Counters | None = None  # counters when the current tuning came into force
        self._latest: Counters | None = None  # counters at the last look
        self._batches: list[Batch] = []  # only those with comparisons

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.look, time.time(), self._revision())
                self._on_record(self.record)
            except Exception as error:  # a full disk or a bug: the current tuning stays, and the next look tries again
                log.warning("the tuner could not look", error=repr(error))
            await asyncio.sleep(LOOK_SECONDS)

    def look(self, now: float, revision: int) -> None:
        """Looks once at the counters, at `now` (seconds since the epoch). This process follows decision `revision` now.

        Raises OSError if it cannot write, or ConfigError if the config file cannot be read.
        """
        before = read_record(self._folder)
        self.record = record_for(self._spec, before, now)
        seen = Counters.read(self._registry, now)
        if self._latest is None:  # counts from before a restart are lost
            self.record = self.record.model_copy(update={"window_start": "", "measured_since": ""})
        elif (batch := batch_between(self._latest, seen)).pairs:
            self._batches.append(batch)
        self._latest = seen
        if not self.record.window_start:
            self._began = None
            self.record = acknowledged(self._spec, self.record, [revision], now)
        if self.record.window_start:
            self._began = self._began or seen
            if seen.at > self._began.at:
                self._decide(seen, self._began, now)
        if self.record != before:
            write_record(self._folder, self.record)
        self._follow(revision)

    def _decide(self, seen: Counters, began: Counters, now: float) -> None:
        since = evidence_start(now, seconds_of(self.record.measured_since) or now)
        self._batches = [batch for batch in self._batches if batch.end >= since]
        current = in_force(self._spec, self.record, self._own_levels)
        decision = tune(
            current,
            window_between(began, seen, self._batches),
            goals_of(self._spec),
            now=now,
            changed_at=changed_at(self._spec, self.record),
        )
        decided = record_decision(self._spec, self.record, current, decision, now)
        if decided.revision != self.record.revision:
            does = "tunes" if self._spec.tuning.mode is TuningMode.AUTO else "would tune"
            log.info(does, reason=decision.reason, message=decision.message, revision=decided.revision)
        self.record = decided

    def _follow(self, revision: int) -> None:
        """Writes the config file if this process does not follow the record yet."""
        obeyed = followed(self._spec, self.record)
        if obeyed is not None and obeyed.revision != revision:
            config = read_config_file(self._config_file).config
            write_private(self._config_file, with_tuning(config, self._spec, obeyed).model_dump_json(indent=2))

    def _revision(self) -> int:
        """Returns the number of the decision that this process follows."""
        return int(self._registry.get_sample_value("diffcache_tuning_revision") or 0)


def with_tuning(config: ServingConfig, spec: DiffusionCacheSpec, record: TuningStatus) -> ServingConfig:
    """Returns the config with the values of another decision. Pure."""
    capacity, levels = effective_cache(spec, record)
    return config.model_copy(
        update={
            "cache": config.cache.model_copy(update={"capacity_bytes": capacity, "levels": levels}),
            "tuning": config.tuning.model_copy(
                update={"revision": record.revision, "chose_levels": bool(record.levels)}
            ),
        }
    )
