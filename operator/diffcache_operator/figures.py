"""Figures of serving pods, read from what they export: for the status, not for decisions. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from diffcache_core.cache.resume import Level, Levels
from diffcache_core.names import CONFIG_PARTS, CONFIG_PENDING, LEVEL, TUNING_REVISION
from diffcache_operator.exposition_lines import read_samples

_CONFIG, _REQUESTS = "diffcache_config_info", "diffcache_requests_total"
_NUMBERS = (
    "diffcache_steps_total",
    "diffcache_steps_skipped_total",
    "diffcache_entries",
    "diffcache_cache_bytes",
    "diffcache_index_up",
    "diffcache_ledger_up",
    "diffcache_store_up",
    "diffcache_states_undeleted",
    TUNING_REVISION,
)
NAMES = (_CONFIG, CONFIG_PENDING, _REQUESTS, LEVEL, *_NUMBERS)
"""The metrics that pods are asked for and `parse` reads."""


@dataclass(frozen=True)
class Figures:
    """Figures of one pod, or of several: then counts are sums since the pods started."""

    steps: float = 0
    steps_skipped: float = 0
    hits: float = 0
    look_ups: float = 0  # requests that may read the cache and were answered
    entries: float = 0  # of the shared cache: the highest number that a pod reports
    bytes: float = 0
    index_up: bool | None = None  # None: no pod reported it
    ledger_up: bool | None = None
    store_up: bool | None = None
    undeleted: float = 0  # states that left the cache while their bytes are still in the store
    config_revisions: frozenset[str] = frozenset()  # revisions of the configs in use; empty: no pod reported one
    config_pending: frozenset[str] = frozenset()  # parts of the newest config that a pod does not use yet
    tuning_revisions: tuple[int, ...] = ()  # one for each pod that reported it
    levels: frozenset[tuple[Level, ...]] = frozenset()  # the tables in force, of pods that report a tuning revision

    @property
    def steps_saved_ratio(self) -> float | None:
        return self.steps_skipped / self.steps if self.steps else None

    @property
    def hit_ratio(self) -> float | None:
        return self.hits / self.look_ups if self.look_ups else None


def parse(text: str) -> Figures:
    """Parses what one pod exports; missing metrics count as 0. Raises ValueError if a pod of ours would not export
    it."""
    numbers: dict[str, float | None] = dict.fromkeys(_NUMBERS)
    results: dict[str, float] = {}
    levels: dict[int, float] = {}
    revisions: set[str] = set()
    pending: set[str] = set()
    for sample in read_samples(text, NAMES):
        if sample.name == _CONFIG and sample.value == 1:
            revisions.add(sample.labels.get("revision", ""))
        if sample.name == CONFIG_PENDING and sample.value == 1:
            pending.add(sample.labels.get("part", ""))
        if not math.isfinite(sample.value):
            continue
        if sample.name == _REQUESTS:
            result = sample.labels.get("result", "")
            results[result] = results.get(result, 0) + sample.value
        elif sample.name == LEVEL:
            levels[int(sample.labels.get("skip", ""))] = sample.value
        elif not sample.labels:
            numbers[sample.name] = sample.value
    hits = results.get("exact", 0) + results.get("approximate", 0)
    tuning = numbers[TUNING_REVISION]

    def up(what: str) -> bool | None:
        value = numbers[f"diffcache_{what}_up"]
        return None if value is None else value > 0

    return Figures(
        steps=numbers["diffcache_steps_total"] or 0,
        steps_skipped=numbers["diffcache_steps_skipped_total"] or 0,
        hits=hits,
        look_ups=hits + results.get("miss", 0),
        entries=numbers["diffcache_entries"] or 0,
        bytes=numbers["diffcache_cache_bytes"] or 0,
        index_up=up("index"),
        ledger_up=up("ledger"),
        store_up=up("store"),
        undeleted=numbers["diffcache_states_undeleted"] or 0,
        config_revisions=frozenset(revisions),
        config_pending=frozenset(pending & set(CONFIG_PARTS)),  # unknown words must not get into conditions
        tuning_revisions=() if tuning is None else (int(tuning),),
        levels=frozenset() if tuning is None else frozenset({_table(levels)}),
    )


def _table(levels: dict[int, float]) -> tuple[Level, ...]:
    """Makes a table of levels, {skip percent: similarity}. Raises ValueError if it is impossible."""
    # No similarity is above 1: with such a value the tuner closes a level.
    if any(not (1 <= skip <= 99 and -1 <= similarity <= 2) for skip, similarity in levels.items()):
        raise ValueError("a level's skip goes from 1 to 99 percent, its similarity from -1 to 2")
    return Levels(tuple(Level(*level) for level in levels.items())).table


def add(pods: list[Figures]) -> Figures:
    """Adds up pods. Index, ledger and store are up only if every pod that reports says so. The pods share one cache, so
    its size is no sum."""
    return Figures(
        steps=sum(figures.steps for figures in pods),
        steps_skipped=sum(figures.steps_skipped for figures in pods),
        hits=sum(figures.hits for figures in pods),
        look_ups=sum(figures.look_ups for figures in pods),
        entries=max((figures.entries for figures in pods), default=0),
        bytes=max((figures.bytes for figures in pods), default=0),
        index_up=_all(figures.index_up for figures in pods),
        ledger_up=_all(figures.ledger_up for figures in pods),
        store_up=_all(figures.store_up for figures in pods),
        undeleted=sum(figures.undeleted for figures in pods),
        config_revisions=frozenset().union(*(figures.config_revisions for figures in pods)),
        config_pending=frozenset().union(*(figures.config_pending for figures in pods)),
        tuning_revisions=tuple(revision for figures in pods for revision in figures.tuning_revisions),
        levels=frozenset().union(*(figures.levels for figures in pods)),
    )


def _all(reported: Iterable[bool | None]) -> bool | None:
    """Returns whether all values that were reported are true; None if none was reported."""
    known = [up for up in reported if up is not None]
    return all(known) if known else None
