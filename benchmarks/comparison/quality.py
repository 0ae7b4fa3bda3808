"""CLIPScore of pictures, and the probes that measure how different the pictures of one prompt are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.comparison.controls import (
    Controls,
    Job,
    draw_batched,
    encode_all,
    late_start,
    parent_of,
    uncached_job,
)
from benchmarks.comparison.rows import (
    BYPASS,
    EXACT,
    LATE,
    LRU_TIGHT,
    OURS,
    RANDOM,
    STOCK,
    TIGHT,
    UNIFORM,
    Drawn,
)
from benchmarks.comparison.statistics import pairwise_rms
from benchmarks.comparison.systems import Ours, System
from diffcache_core.generation import CacheMode, GenerationRequest
from diffcache_serving.engine.diffusion_model import DiffusionModel
from diffcache_serving.values.found import Found, Miss
from diffcache_serving.values.text import TextEncoding


class Scorer:
    """Cosine of picture and prompt by the bundled CLIP."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer, CLIPModel

        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._clip = CLIPModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()

    def score(self, pictures: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        """(pictures,) cosines; each picture with its own prompt."""
        with torch.inference_mode():
            # The model was trained on pixels of -1 to 1 and on padded prompts with their mask.
            pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
            length = self._clip.config.text_config.max_position_embeddings
            tokens = self._tokenizer(
                list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
            )
            text = self._clip.text_projection(
                self._clip.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
            )
            image = self._clip.visual_projection(self._clip.vision_model(pixel_values=pixels).pooler_output)
            cosines: np.ndarray = torch.nn.functional.cosine_similarity(image, text).numpy()
        return cosines


@dataclass(frozen=True)
class Probes:
    """Requests of the diversity measurement, the seeds of one prompt next to each other."""

    requests: list[GenerationRequest]
    texts: list[TextEncoding]
    seeds: int

    def distances(self, drawn: Sequence[Drawn]) -> np.ndarray:
        """(prompts,) mean pairwise distance of one prompt's pictures."""
        groups = [drawn[i : i + self.seeds] for i in range(0, len(drawn), self.seeds)]
        return np.array([pairwise_rms([d.picture for d in group]) for group in groups])


def build_probes(
    model: DiffusionModel,
    requests: Sequence[GenerationRequest],
    prompts: int,
    seeds: int,
    random: np.random.Generator,
) -> Probes:
    """So many prompts of the stream, each under fresh seeds; READ_ONLY, so the caches stay as the stream left them."""
    distinct = list(dict.fromkeys(request.prompt for request in requests))
    chosen = [distinct[i] for i in random.permutation(len(distinct))[:prompts]]
    probes = [
        replace(requests[0], prompt=prompt, seed=int(random.integers(2**31)), cache_mode=CacheMode.READ_ONLY)
        for prompt in chosen
        for _ in range(seeds)
    ]
    return Probes(probes, encode_all(model, probes), seeds)


async def draw_probes(
    systems: dict[str, System], controls: Controls, probes: Probes, mean_steps: dict[str, int]
) -> dict[str, list[Drawn]]:
    """The probes' pictures by row: real look-ups, drawn in batches; what misses is the uncached picture."""
    model = controls.model
    pairs = list(zip(probes.requests, probes.texts, strict=True))
    drawn = {BYPASS: draw_batched(model, [Job(r, t, Miss()) for r, t in pairs])}
    drawn[STOCK] = [await systems[STOCK].draw(r) for r in probes.requests]
    ks: list[int] = []
    for name in (OURS, EXACT, TIGHT, LRU_TIGHT):
        system = systems[name]
        assert isinstance(system, Ours)
        cache = system.generator.cache
        founds = [await cache.look_up(cache.query(r, t)) for r, t in pairs]
        drawn[name] = _draw_found(model, probes, founds, drawn[BYPASS])
        ks = [found.k for found in founds] if name == OURS else ks
    random = np.random.default_rng(controls.seed)
    starts: dict[str, Callable[[GenerationRequest, int], Found]] = {
        LATE: lambda request, k: late_start(model, request, k),
        RANDOM: lambda request, k: parent_of(controls.parents[int(random.integers(len(controls.parents)))], k),
    }
    for name, start in starts.items():
        founds = [start(r, k) for (r, _), k in zip(pairs, ks, strict=True)]
        drawn[name] = _draw_found(model, probes, founds, drawn[BYPASS])
    drawn[UNIFORM] = draw_batched(model, [uncached_job(r, t, r.steps - k) for (r, t), k in zip(pairs, ks, strict=True)])
    for name, steps in mean_steps.items():
        drawn[name] = draw_batched(model, [uncached_job(r, t, steps) for r, t in pairs])
    return drawn


def _draw_found(
    model: DiffusionModel, probes: Probes, founds: Sequence[Found], uncached: Sequence[Drawn]
) -> list[Drawn]:
    jobs = zip(probes.requests, probes.texts, founds, strict=True)
    resumed = iter(draw_batched(model, [Job(r, t, f) for r, t, f in jobs if f.k]))
    return [next(resumed) if found.k else plain for found, plain in zip(founds, uncached, strict=True)]
