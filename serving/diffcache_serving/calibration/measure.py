"""Measures the paired runs of one new prompt: with each parent at each k, and the controls of the same cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from diffcache_serving.calibration.bench import Bench
from diffcache_serving.calibration.fit import Pair
from diffcache_serving.calibration.pairs import Half, Unit
from diffcache_serving.calibration.record import Record
from diffcache_serving.engine.device_run import DeviceRun

CONTROLS = ("late_start", "fewer_steps", "random_parent")


def measure_unit(bench: Bench, unit: Unit) -> dict[str, Any]:
    """Returns the qualities of a new prompt's pictures as an item of the record. All runs use the prompt's own seed."""
    i, skips = unit.prompt, [skip.k for skip in bench.settings.skips]
    clean = bench.clean([i, unit.random_parent, *(p.parent for p in unit.partners)])
    text, noise = bench.encode(i), bench.noise(i)
    jobs: list[DeviceRun] = [bench.late_start(text, noise, k) for k in skips]
    jobs += [bench.from_noise(text, noise, bench.settings.steps - k) for k in skips]
    for parent in (unit.random_parent, *(p.parent for p in unit.partners)):
        jobs += [bench.resumed(text, clean[parent], noise, k) for k in skips]
    latents = [clean[i], *bench.run(jobs)]
    uncached, *scores = (round(q, 6) for q in bench.score(latents, [i] * len(latents)))
    rows = [scores[at : at + len(skips)] for at in range(0, len(scores), len(skips))]
    controls = dict(zip(CONTROLS, rows, strict=False))
    partners = [
        {"concept": bench.prompts[p.parent].concept, "similarity": round(p.similarity, 6), "cached": row}
        for p, row in zip(unit.partners, rows[len(CONTROLS) :], strict=True)
    ]
    return {"concept": bench.prompts[i].concept, "uncached": uncached, **controls, "partners": partners}


def read_pairs(record: Record, units: Iterable[Unit], half: Half) -> list[Pair]:
    """Returns the measured pairs of one half."""
    return [pair for unit in units if unit.half is half for pair in _pairs(record[unit.key])]


def _pairs(item: dict[str, Any]) -> Sequence[Pair]:
    controls = {name: tuple(item[name]) for name in CONTROLS}
    return [
        Pair(
            similarity=partner["similarity"],
            concept=item["concept"],
            parent_concept=partner["concept"],
            uncached=item["uncached"],
            cached=tuple(partner["cached"]),
            **controls,
        )
        for partner in item["partners"]
    ]
