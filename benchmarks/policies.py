"""Which entries to give up: steps saved by each policy at several cache sizes, over keys only (nothing is drawn).

    python benchmarks/policies.py                  # 3,000 requests, about two minutes, most of it encoding prompts

The same stream runs against every policy with the functions that the serving process uses. Beside the policies of core
stands the cache that never gives anything up.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.stream import Stream, StreamOptions, build_pool, build_stream, load_bundled, measure, statistics_table
from diffcache_core.cache.policies import POLICIES
from diffcache_core.cache.resume import Levels
from diffcache_core.simulator.cache import Neighbour
from diffcache_core.simulator.replay import ReplayOptions, ReplayOutcome, ReplayRequest, replay

OURS = "LCBFU"
SHARES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
"""Cache sizes as shares of the stream: from much too small to nearly all of it."""


@dataclass(frozen=True)
class Row:
    """One policy; `admission` as in the serving process."""

    name: str
    policy: str
    admission: bool


ROWS = (
    Row("LCBFU (ours, with admission)", OURS, True),
    Row("LCBFU without admission", OURS, False),
    *(Row(name, name, False) for name in POLICIES if name != OURS),
    Row("LRU with our admission", "LRU", True),
)


def neighbours_above(stream: Stream, floor: float) -> list[list[Neighbour]]:
    """For each request the earlier ones at least as similar as `floor`, most similar first, the newest of equals."""
    lists = []
    for i in range(len(stream.requests)):
        similarities = stream.keys[:i] @ stream.keys[i]
        near = np.flatnonzero(similarities >= floor)[::-1]
        near = near[np.argsort(-similarities[near], kind="stable")]
        lists.append([Neighbour(int(j), float(similarities[j])) for j in near])
    return lists


def replay_requests(stream: Stream, levels: Levels, steps: int) -> list[ReplayRequest]:
    lists = neighbours_above(stream, levels.floor)
    return [ReplayRequest(r.prompt, r.seed, steps, near) for r, near in zip(stream.requests, lists, strict=True)]


@dataclass(frozen=True)
class Outcomes:
    """`by_row[name][capacity]`."""

    capacities: tuple[int, ...]
    by_row: dict[str, dict[int, ReplayOutcome]]
    unbounded: ReplayOutcome


def run_all(requests: Sequence[ReplayRequest], levels: Levels, capacities: Sequence[int]) -> Outcomes:
    by_row = {
        row.name: {
            c: replay(requests, ReplayOptions(POLICIES[row.policy], levels, c, row.admission)) for c in capacities
        }
        for row in ROWS
    }
    return Outcomes(tuple(capacities), by_row, replay(requests, ReplayOptions(POLICIES[OURS], levels)))


def outcomes_table(outcomes: Outcomes, steps: int) -> Table:
    table = Table(title=f"steps saved ratio at N = {steps}, by capacity in entries; * = best of the column")
    table.add_column("policy")
    for capacity in outcomes.capacities:
        table.add_column(f"{capacity:,}", justify="right")
    best = {c: max(row[c].skipped for row in outcomes.by_row.values()) for c in outcomes.capacities}
    for name, row in outcomes.by_row.items():
        cells = [
            f"{row[c].steps_saved_ratio:.4f}{'*' if row[c].skipped == best[c] else ' '}" for c in outcomes.capacities
        ]
        table.add_row(name, *cells)
    table.add_section()
    table.add_row("unbounded", *[f"{outcomes.unbounded.steps_saved_ratio:.4f} "] * len(outcomes.capacities))
    return table


def verdicts(outcomes: Outcomes) -> list[str]:
    """One sentence for each size at which something simpler saves more than ours does."""
    ours = outcomes.by_row[ROWS[0].name]
    lines = []
    for capacity in outcomes.capacities:
        better = {
            name: row[capacity].steps_saved_ratio
            for name, row in outcomes.by_row.items()
            if row[capacity].skipped > ours[capacity].skipped
        }
        if better:
            names = ", ".join(f"{name} ({ratio:.4f})" for name, ratio in sorted(better.items(), key=lambda b: -b[1]))
            lines.append(f"At {capacity:,} entries ours ({ours[capacity].steps_saved_ratio:.4f}) loses to {names}.")
    return lines or ["At no size does another row save more steps than ours."]


def as_json(outcomes: Outcomes) -> dict[str, Any]:
    return {
        "capacities": outcomes.capacities,
        "rows": {
            name: {str(c): asdict(o) | {"steps_saved_ratio": o.steps_saved_ratio} for c, o in row.items()}
            for name, row in outcomes.by_row.items()
        },
        "unbounded": asdict(outcomes.unbounded) | {"steps_saved_ratio": outcomes.unbounded.steps_saved_ratio},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=8, help="N of every request")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pool", type=int, default=3000, help="prompts of one concept to choose from")
    parser.add_argument("--scenes", type=int, default=4000, help="prompts of two or three concepts to choose from")
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    console = Console(width=max(120, Console().width), highlight=False)
    console.print(f"command: {' '.join([sys.executable, *sys.argv])}")
    model = load_bundled()
    options = StreamOptions(arguments.requests, arguments.seed)
    stream = build_stream(build_pool(model, arguments.pool, arguments.seed, arguments.scenes), options)
    statistics = measure(stream)
    console.print(statistics_table(statistics, options))
    started = time.perf_counter()
    capacities = sorted({max(1, round(share * arguments.requests)) for share in SHARES})
    outcomes = run_all(replay_requests(stream, model.levels, arguments.steps), model.levels, capacities)
    levels = ", ".join(f"{v.similarity:g}: {v.skip_percent}%" for v in model.levels.table)
    console.print(outcomes_table(outcomes, arguments.steps))
    console.print(f"levels {levels}; the same prompt under another seed at most {model.levels.reseed_skip_percent}%")
    console.print(f"{len(ROWS) * len(capacities) + 1} replays in {time.perf_counter() - started:.1f} s")
    for line in verdicts(outcomes):
        console.print(line)
    if arguments.json:
        arguments.json.write_text(json.dumps({"stream": asdict(statistics)} | as_json(outcomes), indent=1))


if __name__ == "__main__":
    main()
