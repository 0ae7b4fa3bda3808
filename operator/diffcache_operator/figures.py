"""Figures of serving pods, out of what they export: for status, not for decisions. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Figures:
    """Sums over pods, since they started."""

    steps: float = 0
    steps_skipped: float = 0
    hits: float = 0
    look_ups: float = 0  # requests that may read the cache and were answered
    entries: float = 0
    bytes: float = 0
    index_up: bool | None = None  # None: no pod told
    config_revisions: frozenset[str] = frozenset()  # of the configs in use; none: no pod told

    @property
    def steps_saved_ratio(self) -> float | None:
        return self.steps_skipped / self.steps if self.steps else None

    @property
    def hit_ratio(self) -> float | None:
        return self.hits / self.look_ups if self.look_ups else None


def parse(text: str) -> Figures:
    """Of one pod's exposition. Pure; what is not in it counts as 0."""
    samples: dict[str, float] = {}
    results: dict[str, float] = {}
    revisions: set[str] = set()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "diffcache_config_info" and sample.value == 1:
                revisions.add(sample.labels.get("revision", ""))
            if not math.isfinite(sample.value):
                continue
            if sample.name == "diffcache_requests_total":
                result = sample.labels.get("result", "")
                results[result] = results.get(result, 0) + sample.value
            elif not sample.labels:
                samples[sample.name] = sample.value
    hits = results.get("exact", 0) + results.get("approximate", 0)
    up = samples.get("diffcache_index_up")
    return Figures(
        steps=samples.get("diffcache_steps_total", 0),
        steps_skipped=samples.get("diffcache_steps_skipped_total", 0),
        hits=hits,
        look_ups=hits + results.get("miss", 0),
        entries=samples.get("diffcache_entries", 0),
        bytes=samples.get("diffcache_cache_bytes", 0),
        index_up=None if up is None else up > 0,
        config_revisions=frozenset(revisions),
    )


def add(pods: list[Figures]) -> Figures:
    """The index is up only if every pod says so."""
    told = [figures.index_up for figures in pods if figures.index_up is not None]
    return Figures(
        steps=sum(figures.steps for figures in pods),
        steps_skipped=sum(figures.steps_skipped for figures in pods),
        hits=sum(figures.hits for figures in pods),
        look_ups=sum(figures.look_ups for figures in pods),
        entries=sum(figures.entries for figures in pods),
        bytes=sum(figures.bytes for figures in pods),
        index_up=all(told) if told else None,
        config_revisions=frozenset().union(*(figures.config_revisions for figures in pods)),
    )
