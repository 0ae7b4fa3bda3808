"""The tuner in random worlds whose truth is known, beside simple controls.

    python benchmarks/tuning_worlds.py                 # 200 worlds of each kind, some minutes
    python benchmarks/tuning_worlds.py --worlds 20

Controls: levels that stay; a tuner that moves the same levels in the same steps but takes the mean of at least 30 pairs
for the truth; a capacity that stays. Every figure is of the same worlds, seeds and requests.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from rich.console import Console
from rich.table import Table

from diffcache_core.tuning.evidence import BINS, EDGES, FEW, Evidence
from diffcache_core.tuning.level_moves import loosened, withdrawn
from diffcache_core.tuning.tuner import Goals, Tuning, Window, tune
from tests.core.tuning.worlds import Quality, World, goals, granted, hopeless_world, random_world


class MeanAsTruth(Evidence):
    def proven(self, skip: int, index: int, passed: int) -> bool:
        return self._mean(skip, index) >= self.target

    def disproven(self, skip: int, index: int) -> bool:
        return self._mean(skip, index, unknown=1.0) < self.target

    def _mean(self, skip: int, index: int, unknown: float = 0.0) -> float:
        ratio = self.ratio(skip, index)
        return unknown if ratio is None or self.count(skip, index) < FEW else ratio


@dataclass(frozen=True)
class Look:
    current: Tuning
    window: Window
    aim: Goals
    now: float
    changed_at: float | None


def ours(look: Look) -> Tuning:
    return tune(look.current, look.window, look.aim, now=look.now, changed_at=look.changed_at).tuning


def naive(look: Look) -> Tuning:
    skips = [level.skip_percent for level in look.current.levels]
    evidence = MeanAsTruth(look.window.batches, skips, look.aim.quality_target)
    table = withdrawn(look.current.levels, evidence, look.aim.min_similarity)
    if table == look.current.levels:
        table = loosened(look.current.levels, evidence, look.aim.min_similarity)
    return replace(look.current, levels=table)


def fixed(look: Look) -> Tuning:
    return look.current


TUNERS: dict[str, Callable[[Look], Tuning]] = {"tuner": ours, "mean as truth": naive, "levels stay": fixed}


@dataclass(frozen=True)
class Run:
    quality: float  # whole run, served hits
    kept: bool
    wrong: int  # times a level was lowered onto a bin that is truly bad
    within: int  # levels within one busy bin of the truth at the end
    levels: int
    skipped: float  # share of steps, mean over the run
    pairs: float | None  # per level, until all levels were and stayed within one bin


def run(world: World, tuning: Tuning, tuner: Callable[[Look], Tuning], looks: int) -> Run:
    aim, changed_at, wrong = goals(world.quality.target), None, 0
    settled: float | None = None
    skipped, pairs = [], 0.0
    for _ in range(looks):
        window = world.step(tuning)
        pairs += sum(sums.n for sums in world.newest.pairs.values())
        skipped.append(float(granted(tuning.levels, world.crowd).mean()) / 100)
        following = tuner(Look(tuning, window, aim, world.now, changed_at))
        wrong += sum(
            new.similarity < old.similarity and is_bad(world, new.skip_percent, new.similarity)
            for old, new in zip(tuning.levels, following.levels, strict=True)
        )
        if following != tuning:
            tuning, changed_at = following, world.now
        within = [abs(world.off(level, aim.min_similarity)) <= 1 for level in tuning.levels]
        settled = (pairs / len(within) if settled is None else settled) if all(within) else None
    quality = world.whole_run()
    kept = quality >= world.quality.target
    return Run(quality, kept, wrong, sum(within), len(within), float(np.mean(skipped)), settled)


def is_bad(world: World, skip: int, similarity: float) -> bool:
    """Whether requests of the bin at this threshold miss the target; False where there are none."""
    index = max(i for i in range(BINS) if EDGES[i] <= similarity + 1e-9)
    inside = world.crowd[(world.crowd >= EDGES[index]) & (world.crowd < EDGES[index + 1])]
    return (
        len(inside) > 0 and float(world.quality.ratio(np.full(len(inside), skip), inside).mean()) < world.quality.target
    )


def level_table(worlds: int, looks: int, due: int) -> tuple[Table, list[dict[str, object]]]:
    table = Table(title=f"Levels: {worlds} worlds of each kind, {looks} looks, {due} compared requests between two")
    columns = ("world", "what tunes", "quality below target", "wrong loosening in", "within one step", "steps skipped")
    for column in (*columns, "pairs a level until there"):
        table.add_column(column)
    rows: list[dict[str, object]] = []
    for kind, make in (("random", random_world), ("hopeless", hopeless_world)):
        for name, tuner in TUNERS.items():
            runs = []
            for seed in range(worlds):
                world, tuning = make(seed)
                world.due = due
                runs.append(run(world, tuning, tuner, looks))
            settled = [one.pairs for one in runs if one.pairs is not None]
            row: dict[str, object] = {
                "world": kind,
                "tuner": name,
                "below": sum(not one.kept for one in runs),
                "wrong": sum(one.wrong > 0 for one in runs),
                "within": sum(one.within for one in runs) / sum(one.levels for one in runs),
                "skipped": float(np.mean([one.skipped for one in runs])),
                "settled": len(settled),
                "pairs": float(np.median(settled)) if settled else None,
                "lowest": min(one.quality for one in runs),
            }
            rows.append(row)
            table.add_row(
                kind,
                name,
                f"{row['below']} of {worlds} (lowest {row['lowest']:.3f})",
                f"{row['wrong']} of {worlds}",
                f"{row['within']:.1%}",
                f"{row['skipped']:.1%}",
                f"{row['pairs']:.0f} ({len(settled)} worlds)" if settled else "-",
            )
    return table, rows


def capacity_table(worlds: int) -> tuple[Table, list[dict[str, object]]]:
    """Curves of two families; what one request tells is off by `noise`."""
    table = Table(title=f"Capacity: {worlds} curves, from 1/16 to 16 times the knee, 60 looks of 5,000 requests")
    for column in (
        "noise",
        "within 10% of the knee",
        "median distance",
        "worst",
        "moves in the last 20",
        "if it stays",
    ):
        table.add_column(column)
    rows: list[dict[str, object]] = []
    for noise in (0.0, 0.03, 0.05):
        off, moves, stayed = [], [], []
        for seed in range(worlds):
            rng = np.random.default_rng([11, seed])
            saved, knee = random_curve(rng)
            world = World(Quality({}, 0.5, 0.95), seed, saved=saved, saved_noise=noise)
            tuning, changed_at = Tuning((), int(knee * 2 ** rng.uniform(-4, 4))), None
            stayed.append(abs(math.log(tuning.capacity_bytes / knee)))
            late = 0
            for look in range(60):
                window = world.step(tuning)
                following = ours(Look(tuning, window, goals(low=2**16, high=2**44), world.now, changed_at))
                if following != tuning:
                    tuning, changed_at, late = following, world.now, late + (look >= 40)
            off.append(abs(math.log(tuning.capacity_bytes / knee)))
            moves.append(late)
        within = [sum(bool(distance <= math.log(1.1)) for distance in distances) for distances in (off, stayed)]
        median, worst = math.expm1(float(np.median(off))), math.expm1(max(off))
        rows.append({"noise": noise, "within": within[0], "median": median, "worst": worst, "stays": within[1]})
        table.add_row(
            f"{noise:g}",
            f"{within[0]} of {worlds}",
            f"{median:.1%}",
            f"{worst:.1%}",
            f"{np.mean(moves):.2f}",
            f"{within[1]} of {worlds}",
        )
    return table, rows


def random_curve(rng: np.random.Generator) -> tuple[Callable[[float], float], float]:
    """Steps saved ratio by capacity, and its knee at a gain of .02; some doubling of it brings at least .03."""
    while True:
        scale, top, bend = 2.0 ** rng.uniform(24, 30), rng.uniform(0.3, 0.7), rng.uniform(0.4, 1.1)
        saturating = rng.random() < 0.5

        def saved(
            capacity: float, scale: float = scale, top: float = top, bend: float = bend, kind: bool = saturating
        ) -> float:
            part = (capacity / scale) ** bend
            return top * (1 - math.exp(-part)) if kind else top * part / (1 + part)

        sizes = scale * 2 ** np.linspace(-8, 10, 9001)
        ratios = np.array([saved(float(size)) for size in sizes])
        if np.max(ratios[500:] - ratios[:-500]) >= 0.03:
            return saved, float(sizes[np.argmax(ratios - 0.02 * np.log2(sizes))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--looks", type=int, default=40)
    parser.add_argument("--due", type=int, default=1000, help="compared requests between two looks")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    levels, level_rows = level_table(options.worlds, options.looks, options.due)
    capacity, capacity_rows = capacity_table(options.worlds)
    console = Console(width=160)
    console.print(levels)
    console.print(capacity)
    if options.json is not None:
        options.json.write_text(json.dumps({"levels": level_rows, "capacity": capacity_rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
