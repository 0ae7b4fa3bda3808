"""One calibration from beginning to end: curve, pairs, fit, seeds, chains. It can be resumed after every item."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from diffcache_core.cache.resume import Level
from diffcache_core.choices import DType
from diffcache_core.generation import InvalidRequest
from diffcache_core.serving_config import ModelConfig
from diffcache_serving.calibration.bench import Bench
from diffcache_serving.calibration.chains import ChainSetting, DepthPoint, measure_chains, plan_chains, read_depths
from diffcache_serving.calibration.curve import CurvePoint, measure_curve, read_curve
from diffcache_serving.calibration.findings import Findings
from diffcache_serving.calibration.fit import bands_of, fit_levels
from diffcache_serving.calibration.heldout import report_bins, report_levels
from diffcache_serving.calibration.measure import measure_unit, read_pairs
from diffcache_serving.calibration.pairs import Half, Unit, Universe, plan_units
from diffcache_serving.calibration.prompts import PromptList, read_prompts
from diffcache_serving.calibration.record import Record
from diffcache_serving.calibration.reseed import ReseedPoint, measure_reseed, read_reseed
from diffcache_serving.calibration.settings import CalibrationError, Settings
from diffcache_serving.engine.loading import LoadedModel, load_model
from diffcache_serving.scorer import ClipScorer
from diffcache_serving.values.errors import NotFinite, ScorerError

RECORD_FILE = "measurements.jsonl"
CURVE_CHUNK = 4  # prompts of the curve that are measured together: their 32 runs keep a batch of 16 full
LEVELS_CHAINED = 2  # number of granted levels to test with chains, largest skip first: there a drift would begin

T = TypeVar("T")


class Progress(Protocol):
    """Gets the progress of a calibration. Items are prompts or chains."""

    def stage(self, name: str, total: int, done: int) -> None: ...
    def advance(self, items: int) -> None: ...


@dataclass(frozen=True)
class Task:
    model: str  # bundled://NAME or file://FOLDER
    scorer: Path  # folder of a CLIPModel
    prompts: Path
    work_dir: Path
    settings: Settings
    alpha: float
    batch: int  # runs in one denoiser call


def calibrate(task: Task, progress: Progress) -> Findings:
    """Measures what the record in `task.work_dir` lacks, and decides levels. Raises CalibrationError or ModelError."""
    prompts = read_prompts(task.prompts, _rng("prompts"))
    model = load_model(_model_config(task))
    try:
        scorer = ClipScorer(task.scorer, model.diffusion.device)
    except ScorerError as error:
        raise CalibrationError(f"--{error}") from None
    try:
        return _measure(task, model, scorer, prompts, progress)
    except InvalidRequest as error:
        raise CalibrationError(f"--model {task.model}: {error}") from None
    except NotFinite as error:
        raise CalibrationError(f"--model {task.model}: {error}: a model that draws so cannot be calibrated") from None


def _measure(task: Task, model: LoadedModel, scorer: ClipScorer, prompts: PromptList, progress: Progress) -> Findings:
    settings = task.settings
    source = _describe(model, scorer, prompts, settings)
    task.work_dir.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode(), Record(task.work_dir / RECORD_FILE, source) as record:
        bench = Bench(model.diffusion, scorer, prompts.prompts, settings, model.default_size, task.batch)
        universe = _build_universe(prompts, bench, progress)
        stages = _Stages(bench, universe, record, progress)
        curve = stages.curve()
        units = stages.pairs()
        fit = fit_levels(read_pairs(record, units, Half.FIT), settings.skips, task.alpha)
        held_out = read_pairs(record, units, Half.REPORT)
        return Findings(
            source=source,
            settings=settings,
            alpha=task.alpha,
            curve=tuple(curve),
            fit=fit,
            levels=tuple(report_levels(held_out, fit.levels, settings.skips)),
            bins=tuple(report_bins(held_out, settings.skips)),
            reseed=tuple(stages.reseed()),
            drift=tuple((setting, stages.drift(setting)) for setting in _chain_settings(fit.levels, settings)),
        )


@dataclass(frozen=True)
class _Stages:
    """Each stage measures the items that the record lacks, and reads all of them."""

    bench: Bench
    universe: Universe
    record: Record
    progress: Progress

    def curve(self) -> list[CurvePoint]:
        settings = self.bench.settings
        wanted = {f"curve/{i}": i for i in self._prompts(settings.curve_prompts, "curve")}
        items = self._fill("curve", wanted, CURVE_CHUNK, lambda chunk: measure_curve(self.bench, chunk))
        return read_curve(items, settings.curve_steps)

    def pairs(self) -> list[Unit]:
        units = plan_units(self.universe, self.bench.settings.pairs_per_bin, _rng("pairs"))
        wanted = {unit.key: unit for unit in units}
        self._fill("pairs", wanted, 1, lambda chunk: [measure_unit(self.bench, unit) for unit in chunk])
        return units

    def reseed(self) -> list[ReseedPoint]:
        settings = self.bench.settings
        wanted = {f"seeds/{i}": i for i in self._prompts(settings.reseed_prompts, "seeds")}
        items = self._fill("seeds", wanted, 1, lambda chunk: [measure_reseed(self.bench, i) for i in chunk])
        return read_reseed(items, settings.skips)

    def drift(self, setting: ChainSetting) -> tuple[DepthPoint, ...]:
        settings, percent = self.bench.settings, setting.skip.percent
        chains = plan_chains(self.universe, setting, settings.chains, settings.chain_length, _rng(f"chains/{percent}"))
        wanted = {chain.key: chain for chain in chains}
        chunk = max(self.bench.batch // 2, 1)  # half a batch, because each chain runs together with its control
        items = self._fill(f"chains {percent}%", wanted, chunk, lambda part: measure_chains(self.bench, part))
        return tuple(read_depths(items))

    def _prompts(self, count: int, purpose: str) -> list[int]:
        """Returns `count` random prompts of different concepts. A larger count begins with those of a smaller one."""
        rng, seen = _rng(purpose), set[str]()
        chosen = []
        for i in rng.permutation(len(self.universe.concepts)).tolist():
            if self.universe.concepts[i] not in seen:
                seen.add(self.universe.concepts[i])
                chosen.append(i)
        return chosen[:count]

    def _fill(
        self, name: str, wanted: Mapping[str, T], size: int, measure: Callable[[list[T]], list[dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Returns the items of `wanted`. Measures those that the record lacks, in chunks of `size`."""
        missing = [key for key in wanted if key not in self.record]
        self.progress.stage(name, len(wanted), len(wanted) - len(missing))
        for at in range(0, len(missing), size):
            keys = missing[at : at + size]
            for key, item in zip(keys, measure([wanted[key] for key in keys]), strict=True):
                self.record.add(key, item)
            self.progress.advance(len(keys))
        return [self.record[key] for key in wanted]


def _build_universe(prompts: PromptList, bench: Bench, progress: Progress) -> Universe:
    """Computes the keys of all prompts, in the same way as serving."""
    progress.stage("keys", len(prompts.prompts), 0)
    keys, ids = [], []
    for i in range(len(prompts.prompts)):
        text = bench.encode(i)
        if not text.has_key:
            raise CalibrationError(f"--prompts: the model gives no key for {prompts.prompts[i].text!r}: remove it")
        keys.append(text.key)
        ids.append(text.prompt_ids)
        progress.advance(1)
    return Universe(np.stack(keys), tuple(prompt.concept for prompt in prompts.prompts), tuple(ids))


def _model_config(task: Task) -> ModelConfig:
    return ModelConfig(
        source=task.model,
        scheduler=task.settings.scheduler,
        dtype=DType.AUTO,
        steps=task.settings.steps,
        guidance=task.settings.guidance,
        width=None,
        height=None,
    )


def _describe(model: LoadedModel, scorer: ClipScorer, prompts: PromptList, settings: Settings) -> dict[str, Any]:
    """Returns everything on which a measurement depends. A record with other values is refused.

    It has no counts of prompts, because they only add items.
    """
    return {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "embedder": model.embedder,
        "scorer": scorer.digest,
        "prompts": prompts.digest,
        "device": model.diffusion.device.type,
        "dtype": str(model.diffusion.dtype).removeprefix("torch."),
        "width": model.default_size[0],
        "height": model.default_size[1],
        "scheduler": settings.scheduler,
        "steps": settings.steps,
        "guidance": settings.guidance,
        "curveSteps": settings.curve_steps,
        "pairsPerBin": settings.pairs_per_bin,
        "reseedSeeds": settings.reseed_seeds,
        "chainLength": settings.chain_length,
    }


def _chain_settings(levels: Sequence[Level], settings: Settings) -> list[ChainSetting]:
    skips = {skip.percent: skip for skip in settings.skips}
    return [ChainSetting(skips[level.skip_percent], band) for level, band in bands_of(levels)[::-1][:LEVELS_CHAINED]]


def _rng(purpose: str) -> np.random.Generator:
    """Returns a generator for one purpose with a fixed seed, so that equal settings choose equal prompts."""
    return np.random.default_rng(list(hashlib.sha256(purpose.encode()).digest()))
