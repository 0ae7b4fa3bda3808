"""Pictures are compared in idle time, rightly, and nobody notices."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import structlog
import torch
from PIL import Image

from diffcache_core.cache.resume import Levels, skip_to_k
from diffcache_core.cache.states import Entry, StateKind
from diffcache_core.generation import CacheMode, GenerationRequest, Result
from diffcache_core.names import similarity_bin
from diffcache_core.serving_config import QualityConfig
from diffcache_core.tuning.comparisons import moments
from diffcache_serving.cache.ledger import Target
from diffcache_serving.engine.engine import EngineStopped, Run
from diffcache_serving.engine.loading import LoadedModel
from diffcache_serving.generate import Generation
from diffcache_serving.scorer import ClipScorer
from diffcache_serving.values.found import Found, Miss
from tests.serving.pipeline import pipe_of
from tests.serving.quality.conftest import ALWAYS, LEVELS_FROM_HALF, MakeStage, Stage

FIRST = "red apple, noto style"  # cosines to it, rounded: .91, .49, .15, -.29
CLOSE, ALIKE, APART, OTHER = (
    "red apple, flat style",
    "green apple, noto style",
    "banana, noto style",
    "a rocket over snow",
)
N = 8


async def draw(stage: Stage, request: GenerationRequest, found: Found) -> Image.Image:
    """The picture by the way that requests take."""
    text, _ = await stage.engine.encode(request)
    async with stage.engine.run(request, text, found) as run:
        return await run.image()


async def resumed(stage: Stage, request: GenerationRequest, entry: str, percent: int) -> Image.Image:
    """The picture resumed at a skip from an entry, allowed or not."""
    text, _ = await stage.engine.encode(request)
    near = await stage.box.cache.nearest(stage.box.cache.query(request, text), before=float("inf"))
    (parent,) = (await stage.box.cache.list_entries(Target(entry_id=entry), 1))[0]
    assert near is not None
    parents = replace(near, entry_id=parent.id, states=parent.states, same_prompt=False)
    found = await stage.box.cache.resume_at(parents, skip_to_k(percent, request.steps))
    assert found is not None
    return await draw(stage, request, found)


def served(generation: Generation) -> Image.Image:
    return Image.open(io.BytesIO(generation.image)).convert("RGB")


def quality(scorer: ClipScorer, picture: Image.Image, prompt: str) -> float:
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        return scorer.score(pixels, [prompt], batch=1)[0]


@contextmanager
def broken(module: torch.nn.Module, error: Exception) -> Iterator[None]:
    def fail(*_: Any) -> None:
        raise error

    hook = module.register_forward_pre_hook(fail)
    try:
        yield
    finally:
        hook.remove()


# ---- what is compared ------------------------------------------------------------------------------------------------


async def test_a_hit_is_compared_with_its_run_without_the_cache_and_with_the_next_skip(
    stages: MakeStage, scorer: ClipScorer
) -> None:
    stage = await stages()
    first = await stage.generate(FIRST)
    hit = await stage.generate(CLOSE)
    await stage.shadows.settle()
    assert (hit.result, hit.parent, hit.steps_skipped) == (Result.APPROXIMATE, first.entry, 4)
    assert hit.similarity is not None
    where = similarity_bin(hit.similarity)
    assert stage.pairs() == {("50", where): 1, ("63", where): 1}
    assert stage.steps == N + (N - 5)
    uncached = quality(scorer, await draw(stage, hit.request, Miss()), CLOSE)
    looser = await resumed(stage, hit.request, first.entry, 63)
    for skip, picture in (("50", served(hit)), ("63", looser)):
        expected = moments(quality(scorer, picture, CLOSE), uncached)
        assert stage.sums(skip, where) == pytest.approx(expected, abs=1e-5)
    assert (stage.runs("compared"), stage.runs("dropped"), stage.runs("failed")) == (1, 0, 0)


async def test_a_miss_is_tried_at_the_lowest_level_from_the_nearest_entry(
    stages: MakeStage, scorer: ClipScorer
) -> None:
    """Its own picture, which is an entry by then, is no neighbour."""
    stage = await stages(levels=LEVELS_FROM_HALF)
    first = await stage.generate(FIRST)
    miss = await stage.generate(ALIKE)
    await stage.shadows.settle()
    assert miss.result is Result.MISS
    assert stage.pairs() == {("25", "0.45"): 1}
    assert stage.steps == N - 2
    tried = await resumed(stage, miss.request, first.entry, 25)
    expected = moments(quality(scorer, tried, ALIKE), quality(scorer, served(miss), ALIKE))
    assert stage.sums("25", "0.45") == pytest.approx(expected, abs=1e-5)


async def test_what_is_too_far_from_any_level_costs_nothing(stages: MakeStage) -> None:
    stage = await stages()
    for prompt in (FIRST, APART, OTHER):
        assert (await stage.generate(prompt)).result is Result.MISS
    await stage.shadows.settle()
    assert stage.pairs() == {}
    assert stage.steps == sum(stage.runs(outcome) for outcome in ("compared", "dropped", "failed")) == 0


@pytest.mark.parametrize("mode", [CacheMode.BYPASS, CacheMode.REFRESH])
async def test_who_does_not_read_the_cache_is_left_alone(stages: MakeStage, mode: CacheMode) -> None:
    stage = await stages()
    await stage.generate(FIRST)
    await stage.generate(CLOSE, cache_mode=mode)
    await stage.shadows.settle()
    assert stage.steps == 0


async def test_an_exact_hit_has_nothing_to_compare(stages: MakeStage) -> None:
    stage = await stages()
    await stage.generate(FIRST)
    assert (await stage.generate(FIRST)).result is Result.EXACT
    await stage.shadows.settle()
    assert stage.steps == 0


async def test_another_seed_of_a_prompt_is_not_tried_beyond_its_cap(stages: MakeStage) -> None:
    stage = await stages(levels=Levels(LEVELS_FROM_HALF.table, reseed_skip_percent=25))
    await stage.generate(FIRST)
    hit = await stage.generate(FIRST, seed=2)
    await stage.shadows.settle()
    assert (hit.result, hit.steps_skipped) == (Result.APPROXIMATE, 2)
    assert stage.pairs() == {("25", "0.95"): 1}


async def test_trajectories_are_tried_where_they_have_the_state(stages: MakeStage) -> None:
    """The entry's states stand at the levels' steps, so one at the next skip is there."""
    stage = await stages(kind=StateKind.TRAJECTORY)
    await stage.generate(FIRST)
    hit = await stage.generate(CLOSE)
    await stage.shadows.settle()
    assert (hit.result, hit.steps_skipped) == (Result.APPROXIMATE, 4)
    assert {skip for skip, _ in stage.pairs()} == {"50", "63"}


# ---- nobody notices --------------------------------------------------------------------------------------------------


async def test_a_comparison_leaves_no_trace_but_its_own_counts(stages: MakeStage) -> None:
    """Beside the same requests without comparisons every other series, the ledger and the pictures are the same."""
    own = ("diffcache_shadow_", "diffcache_quality_")
    timed = ("_seconds", "_seconds_total", "_seconds_sum", "_seconds_bucket")
    seen = []
    for settings in (ALWAYS, QualityConfig()):
        stage = await stages(settings)
        pictures: list[Generation] = []
        entries: list[Entry] = []
        for hits, prompt in enumerate((FIRST, CLOSE, ALIKE)):
            pictures.append(await stage.generate(prompt))
            while len(entries) < len(pictures) or sum(entry.uses for entry in entries) < hits:
                entries, _ = await stage.box.cache.list_entries(Target(), 10)  # a hit is recorded behind its answer
        await stage.shadows.settle()
        entries, _ = await stage.box.cache.list_entries(Target(), 10)
        series = {
            (sample.name, *sample.labels.values()): sample.value
            for family in stage.box.metrics.registry.collect()
            for sample in family.samples
            if not sample.name.startswith(own) and not sample.name.endswith(timed)
        }
        states = [(e.prompt, e.depth, [(s.kind, s.uses, s.score) for s in e.states]) for e in entries]
        seen.append((series, states, [p.image for p in pictures]))
        assert stage.queue.pending_steps == stage.queue.requests == 0
        assert (stage.steps > 0) is (settings is ALWAYS)
    assert seen[0] == seen[1]


async def test_a_request_waits_for_no_more_than_one_step(stages: MakeStage, model: LoadedModel) -> None:
    """It comes in the midst of a step of a comparison. The comparison goes on when the request is answered."""
    stage = await stages()
    await stage.generate(FIRST)
    entered, proceed = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def stop_here(*_: Any) -> None:
        if stage.queue.requests == 0:  # a step of a comparison: the request has not come yet
            loop.call_soon_threadsafe(entered.set)
            proceed.wait()

    await stage.generate(CLOSE)
    hook = pipe_of(model).unet.register_forward_pre_hook(stop_here)
    try:
        await entered.wait()
        arriving = asyncio.ensure_future(stage.generate(OTHER, steps=20))
        while not stage.queue.requests:
            await asyncio.sleep(0)
        before = stage.steps
    finally:
        proceed.set()
    assert (await arriving).result is Result.MISS
    during = stage.steps
    hook.remove()
    assert during <= before + 1
    await stage.shadows.settle()
    assert (stage.runs("compared"), stage.steps) == (1, N + (N - 5))


async def test_where_there_is_no_idle_moment_a_comparison_takes_its_turns_between_steps(stages: MakeStage) -> None:
    """A long request is under way all the time. Between two of its steps there is one piece of a comparison at most."""
    stage = await stages()
    await stage.generate(FIRST)
    between: list[int] = []
    started, last = asyncio.Event(), 0

    def on_run(run: Run, found: Found) -> None:
        async def follow() -> None:
            nonlocal last
            async for _ in run.progress():
                between.append(stage.steps - last)
                last = stage.steps
                started.set()

        following.append(asyncio.create_task(follow()))

    following: list[asyncio.Task[None]] = []
    long = replace(stage.request, prompt=OTHER, steps=1000, cache_mode=CacheMode.BYPASS, request_id="long")
    running = asyncio.create_task(stage.generator.generate(long, on_run))
    await started.wait()
    stage.queue.seconds_per_step = 0.0  # each piece's turn comes at once
    await stage.generate(CLOSE)
    await stage.shadows.settle()
    assert not running.done()
    for task in (running, *following):
        task.cancel()
    await asyncio.gather(running, *following, return_exceptions=True)
    assert (stage.runs("compared"), stage.steps) == (1, N + (N - 5))
    assert max(between) == 1


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae", "scorer"])
async def test_whatever_breaks_in_a_comparison_stays_there(part: str, stages: MakeStage, model: LoadedModel) -> None:
    stage = await stages()
    await stage.generate(FIRST)
    assert stage.shadows.scorer is not None
    pipe, clip = pipe_of(model), stage.shadows.scorer.clip
    modules = {
        "text_encoder": pipe.text_encoder,
        "unet": pipe.unet,
        "vae": pipe.vae.decoder,
        "scorer": clip.vision_model,
    }
    hit = await stage.generate(CLOSE)
    with broken(modules[part], ArithmeticError("broken")):
        await stage.shadows.settle()
    assert hit.result is Result.APPROXIMATE
    assert (stage.runs("compared"), stage.runs("failed")) == (0, 1)
    assert stage.pairs() == {}
    assert (await stage.generate(ALIKE)).result is Result.APPROXIMATE
    await stage.shadows.settle()
    assert stage.runs("compared") == 1


async def test_a_cache_that_cannot_be_searched_fails_the_comparison_only(stages: MakeStage) -> None:
    stage = await stages()
    await stage.generate(FIRST)
    await stage.box.close()
    answered = await stage.generate(CLOSE)
    await stage.shadows.settle()
    assert answered.result is Result.MISS
    assert stage.runs("failed") == 1


# ---- bounds ----------------------------------------------------------------------------------------------------------


async def test_what_does_not_fit_the_queue_is_dropped_and_counted(stages: MakeStage) -> None:
    stage = await stages(max_bytes=64 * 64 * 3 * 2)
    await stage.generate(FIRST)
    with stage.queue.reserve(1):  # never idle
        for prompt in (CLOSE, ALIKE, "a red apple, noto style"):
            await stage.generate(prompt)
        await stage.shadows.planned()
        assert stage.runs("dropped") >= 1
        assert stage.steps == 0
    await stage.shadows.settle()
    assert stage.runs("compared") + stage.runs("dropped") == 3


async def test_what_gets_no_idle_time_is_dropped(stages: MakeStage) -> None:
    stage = await stages(wait_seconds=0.0)
    await stage.generate(FIRST)
    await stage.generate(CLOSE)
    await stage.shadows.settle()
    assert (stage.runs("dropped"), stage.steps) == (1, 0)


async def test_the_budget_holds_over_a_stream(stages: MakeStage) -> None:
    stage = await stages(ALWAYS.model_copy(update={"shadow_percent": 20}))
    for number in range(40):
        await stage.generate(FIRST, seed=number, steps=4, width=32, height=32)
        await stage.shadows.settle()
    asked = stage.box.count("steps_total")
    assert 0 < stage.steps <= 0.2 * asked


async def test_small_pictures_do_not_pay_for_the_comparison_of_a_large_one(stages: MakeStage) -> None:
    stage = await stages(QualityConfig(), own_pixels=32 * 32)
    await stage.generate(FIRST)
    await stage.shadows.configure(ALWAYS)
    await stage.generate(OTHER, width=32, height=32)  # pays for a comparison at its own size
    await stage.generate(CLOSE)
    await stage.shadows.settle()
    assert stage.steps == 0
    await stage.generate(CLOSE, seed=2)  # paid for by the one before
    await stage.shadows.settle()
    assert stage.runs("compared") == 1


# ---- settings and end ------------------------------------------------------------------------------------------------


async def test_the_percentage_changes_while_it_runs(stages: MakeStage) -> None:
    stage = await stages(QualityConfig())
    await stage.generate(FIRST)
    await stage.generate(CLOSE)
    await stage.shadows.configure(ALWAYS)
    await stage.generate(ALIKE)
    await stage.shadows.settle()
    assert stage.steps == 0  # the first answer under the new percentage pays for the next
    await stage.generate(CLOSE, seed=5)
    await stage.shadows.settle()
    assert stage.runs("compared") == 1
    await stage.shadows.configure(QualityConfig())
    await stage.generate(CLOSE, seed=6)
    await stage.shadows.settle()
    assert stage.runs("compared") == 1


@pytest.mark.parametrize(
    ("scorer", "event"),
    [("", "there is no scorer"), ("file:///nowhere", "cannot be used"), ("bundled://emoji", "cannot be used")],
)
async def test_without_a_scorer_nothing_is_compared_and_that_is_told_once(
    stages: MakeStage, scorer: str, event: str
) -> None:
    with structlog.testing.capture_logs() as logs:
        stage = await stages(QualityConfig(shadow_percent=1000, scorer=scorer))
        await stage.shadows.configure(QualityConfig(shadow_percent=1000, scorer=scorer))
        await stage.generate(FIRST)
        await stage.generate(CLOSE)
        await stage.shadows.settle()
    assert stage.steps == 0
    assert len([entry for entry in logs if event in entry["event"]]) == 1


async def test_closing_gives_up_what_waits_and_what_runs(stages: MakeStage) -> None:
    stage = await stages()
    await stage.generate(FIRST)
    for prompt in (CLOSE, ALIKE):
        await stage.generate(prompt)
    await stage.shadows.planned()
    await stage.shadows.close()
    steps = stage.steps
    await stage.generate(CLOSE, seed=7)
    await stage.shadows.close()
    assert stage.steps == steps
    await stage.engine.stop()


async def test_a_stopped_engine_drops_what_is_left(stages: MakeStage) -> None:
    stage = await stages()
    await stage.generate(FIRST)
    await stage.generate(CLOSE)
    await stage.shadows.planned()
    await stage.engine.stop()
    await stage.shadows.settle()
    assert (stage.runs("compared"), stage.runs("dropped")) == (0, 1)
    with pytest.raises(EngineStopped):
        await stage.engine.spare(lambda: None)
