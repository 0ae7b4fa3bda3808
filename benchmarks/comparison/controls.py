"""The controls: drawn in batches with the serving process's own runs, at the steps that ours ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from benchmarks.comparison.rows import FEWER, FEWER_EXACT, LATE, RANDOM, UNIFORM, Drawn
from benchmarks.comparison.statistics import share_steps
from diffcache_core.cache.states import StateKind
from diffcache_core.generation import GenerationRequest, Result
from diffcache_serving.engine.batch import next_batch
from diffcache_serving.engine.device_run import DeviceRun
from diffcache_serving.engine.diffusion_model import DiffusionModel
from diffcache_serving.engine.step import step
from diffcache_serving.values.found import Found, Miss, Resume
from diffcache_serving.values.text import TextEncoding

BATCH = 16
"""Runs in one denoiser call of the controls: 28 ms a sample and step instead of 43 alone (measured)."""


@dataclass(frozen=True)
class Job:
    """A picture to be drawn: what the request starts from is in `found`."""

    request: GenerationRequest
    text: TextEncoding
    found: Found


def uncached_job(request: GenerationRequest, text: TextEncoding, steps: int) -> Job:
    """From noise, in `steps` steps instead of the request's."""
    return Job(replace(request, steps=steps), text, Miss())


def encode_all(model: DiffusionModel, requests: Sequence[GenerationRequest]) -> list[TextEncoding]:
    with torch.inference_mode():
        return [model.encode(request) for request in requests]


def draw_batched(model: DiffusionModel, jobs: Sequence[Job]) -> list[Drawn]:
    """The pictures of `jobs`, with the serving process's own runs; several share a denoiser call."""
    with torch.inference_mode():
        runs = [DeviceRun.begin(model, job.request, job.text, job.found) for job in jobs]
        call = 0
        while waiting := [run for run in runs if not run.is_denoised]:
            call += 1
            batch = next_batch(waiting, BATCH)
            step(model, batch)
            for run in batch:
                run.last_step = call
        return [
            Drawn(
                np.asarray(model.decode(run.x)[0]),
                job.request.steps - job.found.k,
                job.found.result,
                job.found.k,
                job.found.similarity,
                latent=run.x,
            )
            for run, job in zip(runs, jobs, strict=True)
        ]


def late_start(model: DiffusionModel, request: GenerationRequest, k: int) -> Found:
    """From the request's own noise at step k. At full strength: scaled down to k's it scores no better (measured)."""
    return _resume(k, StateKind.TRAJECTORY, model.noise(request))


def parent_of(latent: torch.Tensor, k: int) -> Found:
    """From any latent, noised to k with the request's own noise."""
    return _resume(k, StateKind.CLEAN, latent)


def _resume(k: int, kind: StateKind, latent: torch.Tensor) -> Found:
    if k == 0:
        return Miss()
    return Resume(
        k=k,
        depth=1,
        parent="",
        similarity=0.0,
        granted_skip=0,
        kind=kind,
        own_run=kind is StateKind.TRAJECTORY,  # then the latent is taken as it is
        tensors={"latent": latent},
        load_seconds=0.0,
    )


Identity = tuple[str, int]  # prompt and seed; N is the same for all requests of a pass


@dataclass
class Controls:
    """Draws the controls of one N. What a row drew before, it answers an exact repeat with."""

    model: DiffusionModel
    seed: int
    memory: dict[str, dict[Identity, Drawn]] = field(default_factory=dict)
    parents: list[torch.Tensor] = field(default_factory=list)  # final latents of ours, oldest first

    def draw(
        self, requests: Sequence[GenerationRequest], texts: Sequence[TextEncoding], ours: Sequence[Drawn]
    ) -> dict[str, list[Drawn]]:
        """All rows for one pass. A row is absent when ours ran fewer steps than there are pictures."""
        random = np.random.default_rng(self.seed)
        total, n = sum(d.steps_run for d in ours), requests[0].steps
        rows: dict[str, list[Drawn]] = {}
        if total >= len(requests):
            shared = share_steps(total, len(requests), n, random)
            rows[FEWER] = draw_batched(
                self.model, [uncached_job(*j) for j in zip(requests, texts, shared, strict=True)]
            )
        fresh = sum(d.result is not Result.EXACT for d in ours)
        few = iter(share_steps(total, fresh, n, random) if fresh else [])
        shared = [next(few) if d.result is not Result.EXACT else 0 for d in ours]
        earlier = self._earlier_parents(ours, random)
        starts: dict[str, Callable[[int], tuple[int, Found]]] = {
            FEWER_EXACT: lambda i: (shared[i], Miss()),
            LATE: lambda i: (n, late_start(self.model, requests[i], ours[i].k)),
            RANDOM: lambda i: (n, parent_of(earlier[i], ours[i].k)),
            UNIFORM: lambda i: (n - ours[i].k, Miss()),
        }
        todo = [i for i, d in enumerate(ours) if d.result is not Result.EXACT]
        for name, start in starts.items():
            jobs = [Job(replace(requests[i], steps=start(i)[0]), texts[i], start(i)[1]) for i in todo]
            drawn = dict(zip(todo, draw_batched(self.model, jobs), strict=True))
            rows[name] = self._with_repeats(name, requests, drawn)
        return rows

    def _with_repeats(self, name: str, requests: Sequence[GenerationRequest], drawn: dict[int, Drawn]) -> list[Drawn]:
        """The row, in order: what was drawn, and for the rest what the row drew for the same request before."""
        memory = self.memory.setdefault(name, {})
        row = []
        for i, request in enumerate(requests):
            identity = request.prompt, request.seed
            if i in drawn:
                memory[identity] = drawn[i]
                row.append(drawn[i])
            else:
                row.append(replace(memory[identity], steps_run=0, k=request.steps, result=Result.EXACT))
        return row

    def _earlier_parents(self, ours: Sequence[Drawn], random: np.random.Generator) -> list[torch.Tensor]:
        """For each request a random latent among those that ours had kept by then; its own where there is none."""
        chosen = []
        for drawn in ours:
            assert drawn.latent is not None
            pool = self.parents or [drawn.latent]
            chosen.append(pool[int(random.integers(len(pool)))])
            if drawn.result is not Result.EXACT:
                self.parents.append(drawn.latent)
        return chosen
