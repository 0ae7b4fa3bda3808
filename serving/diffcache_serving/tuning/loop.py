"""The tuner of a process without a cluster: it looks at its own counters once a minute.

A decision goes into the record first and then into the config file, which this process watches like any other: so a
decision takes effect in the way in which a cluster's does, and a crash between the two ends the same, because
`diffcache up` writes the config from the record.
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
"""Between two looks: a decision rests on hundreds of requests, so more often decides nothing sooner."""

log = structlog.get_logger("diffcache.tuning")


class LocalTuner:
    """`on_record(record)` is called after each look, on the event loop; the look itself runs in a thread."""

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
        self._began: Counters | None = None  # when the tuning in force began to hold here
        self._latest: Counters | None = None
        self._batches: list[Batch] = []  # with comparisons in them

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.look, time.time(), self._revision())
                self._on_record(self.record)
            except Exception as error:  # a full disk or a bug: the tuning in force stays, and the next look tries again
                log.warning("the tuner could not look", error=repr(error))
            await asyncio.sleep(LOOK_SECONDS)

    def look(self, now: float, revision: int) -> None:
        """One look, at `now` (seconds since the epoch), while this process follows the decision numbered `revision`.

        Raises OSError when it cannot write, or ConfigError for a config file that somebody has spoilt.
        """
        before = read_record(self._folder)
        self.record = record_for(self._spec, before, now)
        seen = Counters.read(self._registry, now)
        if self._latest is None:  # what was counted before a restart is gone
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
        """Of the decision that this process says it follows."""
        return int(self._registry.get_sample_value("diffcache_tuning_revision") or 0)


def with_tuning(config: ServingConfig, spec: DiffusionCacheSpec, record: TuningStatus) -> ServingConfig:
    """The config under another decision. Pure."""
    capacity, levels = effective_cache(spec, record)
    return config.model_copy(
        update={
            "cache": config.cache.model_copy(update={"capacity_bytes": capacity, "levels": levels}),
            "tuning": config.tuning.model_copy(
                update={"revision": record.revision, "chose_levels": bool(record.levels)}
            ),
        }
    )
