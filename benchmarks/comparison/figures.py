"""From the pictures of a pass to its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.comparison.rows import BYPASS, LATE, OURS, RANDOM, ROWS, STOCK, TIMED, UNIFORM, Drawn
from benchmarks.comparison.statistics import Interval, mean_difference, median_ratio, ratio_of_means
from diffcache_core.generation import Result


@dataclass(frozen=True)
class RowFigures:
    """One row of a table. None where a row has no such figure."""

    name: str
    is_timed: bool
    steps_run: int
    steps_saved_ratio: float
    exact: int
    approximate: int
    throughput: Interval | None  # times stock's
    computed_throughput: float | None  # of a control, from its steps
    requests_per_second: float | None
    quality: Interval  # ratio to BYPASS, all requests
    quality_resumed: Interval | None  # the same over the requests that ours resumed
    diversity: Interval  # ratio to uncached
    fetch_p50: float | None  # denoiser steps
    fetch_p95: float | None


@dataclass(frozen=True)
class LevelFigures:
    """The requests that ours resumed at one k: mean CLIPScore, and ours minus each control, paired."""

    k: int
    requests: int
    similarity_low: float
    similarity_high: float
    means: dict[str, float]
    differences: dict[str, Interval]  # absent with fewer than two requests


@dataclass(frozen=True)
class PassFigures:
    """One table: N and stream."""

    steps: int
    stream: str
    requests: int
    step_milliseconds: float  # median of one denoiser step alone, of this run
    bypass_time: Interval  # seconds of BYPASS / seconds of stock, median request
    identical: int  # pictures of BYPASS that equal stock's bit for bit
    keep_p50_steps: float  # what ours does after the answer, in denoiser steps
    failed_look_ups: int  # of all four caches; each became a miss
    rows: list[RowFigures]
    differences: dict[str, Interval]  # mean CLIPScore of ours minus each other row, all requests
    levels: list[LevelFigures]

    def row(self, name: str) -> RowFigures | None:
        return next((row for row in self.rows if row.name == name), None)


@dataclass(frozen=True)
class Measured:
    """Everything one pass left, before it becomes figures."""

    steps: int
    stream: str
    drawn: dict[str, list[Drawn]]
    scores: dict[str, np.ndarray]
    distances: dict[str, np.ndarray]
    keep_seconds: list[float]
    step_seconds: float
    failed_look_ups: int


def seconds_of(drawn: Sequence[Drawn]) -> np.ndarray:
    return np.array([d.seconds for d in drawn], float)


def steps_to_seconds(measured: Measured, drawn: Sequence[Drawn]) -> float:
    """What a control would take one request at a time: each request's BYPASS seconds of the same pass, shortened by the
    steps that it saves; an exact repeat as long as ours took for one."""
    full = seconds_of(measured.drawn[BYPASS])
    step_share = min(1.0, measured.steps * measured.step_seconds / float(np.median(full)))  # the rest: encode, decode
    exact = [d.seconds for d in measured.drawn[OURS] if d.result is Result.EXACT and d.seconds is not None]
    exact_seconds = float(np.median(exact)) if exact else 0.0
    return sum(
        exact_seconds if d.result is Result.EXACT else seconds * (1 - step_share * (1 - d.steps_run / measured.steps))
        for d, seconds in zip(drawn, full.tolist(), strict=True)
    )


def row_figures(measured: Measured, name: str, resamples: int) -> RowFigures:
    drawn, scores = measured.drawn[name], measured.scores
    stock = seconds_of(measured.drawn[STOCK])
    is_timed = name in TIMED
    resumed = np.array([i for i, d in enumerate(measured.drawn[OURS]) if d.result is Result.APPROXIMATE], int)
    fetch = [d.fetch_seconds / measured.step_seconds for d in drawn if d.fetch_seconds is not None]
    steps = measured.steps * len(drawn)
    run = sum(d.steps_run for d in drawn)
    return RowFigures(
        name=name,
        is_timed=is_timed,
        steps_run=run,
        steps_saved_ratio=(steps - run) / steps,
        exact=sum(d.result is Result.EXACT for d in drawn),
        approximate=sum(d.result is Result.APPROXIMATE for d in drawn),
        throughput=ratio_of_means(stock, seconds_of(drawn), resamples) if is_timed else None,
        computed_throughput=None if is_timed else float(stock.sum()) / steps_to_seconds(measured, drawn),
        requests_per_second=len(drawn) / float(seconds_of(drawn).sum()) if is_timed else None,
        quality=ratio_of_means(scores[name], scores[BYPASS], resamples),
        quality_resumed=ratio_of_means(scores[name][resumed], scores[BYPASS][resumed], resamples)
        if len(resumed)
        else None,
        diversity=ratio_of_means(measured.distances[name], measured.distances[BYPASS], resamples),
        fetch_p50=float(np.percentile(fetch, 50)) if fetch else None,
        fetch_p95=float(np.percentile(fetch, 95)) if fetch else None,
    )


def level_figures(measured: Measured, resamples: int) -> list[LevelFigures]:
    """One for each k that ours was granted, beside the controls that run the same steps for the same requests."""
    ours, scores = measured.drawn[OURS], measured.scores
    figures = []
    for k in sorted({d.k for d in ours if d.result is Result.APPROXIMATE}):
        those = np.array([i for i, d in enumerate(ours) if d.result is Result.APPROXIMATE and d.k == k])
        similarities = [ours[i].similarity or 0.0 for i in those]
        names = (OURS, BYPASS, LATE, RANDOM, UNIFORM)
        figures.append(
            LevelFigures(
                k,
                len(those),
                min(similarities),
                max(similarities),
                {name: float(scores[name][those].mean()) for name in names},
                {
                    name: mean_difference(scores[OURS][those], scores[name][those], resamples)
                    for name in names[1:]
                    if len(those) > 1
                },
            )
        )
    return figures


def pass_figures(measured: Measured, resamples: int) -> PassFigures:
    drawn = measured.drawn
    bypass, stock = drawn[BYPASS], drawn[STOCK]
    return PassFigures(
        steps=measured.steps,
        stream=measured.stream,
        requests=len(bypass),
        step_milliseconds=measured.step_seconds * 1000,
        bypass_time=median_ratio(seconds_of(bypass), seconds_of(stock), resamples),
        identical=sum(np.array_equal(a.picture, b.picture) for a, b in zip(bypass, stock, strict=True)),
        keep_p50_steps=float(np.median(measured.keep_seconds)) / measured.step_seconds,
        failed_look_ups=measured.failed_look_ups,
        rows=[row_figures(measured, name, resamples) for name in ROWS if name in drawn],
        differences={
            name: mean_difference(measured.scores[OURS], measured.scores[name], resamples)
            for name in ROWS
            if name in drawn and name != OURS
        },
        levels=level_figures(measured, resamples),
    )
