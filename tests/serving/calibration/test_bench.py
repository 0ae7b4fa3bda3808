"""Many runs at once are the runs that serving makes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from diffcache_core.choices import DType
from diffcache_core.generation import GenerationRequest
from diffcache_core.serving_config import ModelConfig
from diffcache_serving.calibration.bench import FIRST_SEED, Bench
from diffcache_serving.calibration.chains import Chain, ChainSetting, measure_chains, read_depths
from diffcache_serving.calibration.measure import measure_unit
from diffcache_serving.calibration.pairs import Half, Partner, Unit
from diffcache_serving.calibration.prompts import Prompt
from diffcache_serving.calibration.reseed import measure_reseed
from diffcache_serving.calibration.settings import Band, Settings, Skip
from diffcache_serving.engine.loading import BUNDLED, load_model
from diffcache_serving.scorer import ClipScorer
from diffcache_serving.values.errors import ScorerError

PROMPTS = [
    Prompt("red apple", "red apple, noto style"),
    Prompt("green apple", "green apple, noto style"),
    Prompt("pizza", "pizza, flat style"),
]
SETTINGS = Settings(steps=4, reseed_seeds=2)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    model = load_model(
        ModelConfig(
            source="bundled://emoji", scheduler="DDIM", dtype=DType.AUTO, steps=4, guidance=3.0, width=None, height=None
        )
    )
    scorer = ClipScorer(BUNDLED / "emoji-clip", model.diffusion.device)
    with torch.inference_mode():
        yield Bench(model.diffusion, scorer, PROMPTS, SETTINGS, model.default_size, batch=3)


def run_alone(bench: Bench, i: int, parent: torch.Tensor | None, k: int) -> torch.Tensor:
    """One run by hand, step by step."""
    request = GenerationRequest(PROMPTS[i].text, FIRST_SEED + i, True, 4, 3.0, 64, 64)
    text, noise, schedule = bench.model.encode(request), bench.model.noise(request), bench.model.schedule(4, k)
    x = schedule.start(noise) if parent is None else schedule.noised(parent, noise)
    for step in range(k, 4):
        (output,) = bench.model.predict([schedule.model_input(step, x)], [schedule.timesteps[step]], [text])
        x = schedule.step(step, output, x)
    return x


def test_runs_of_different_lengths_share_calls_and_stay_themselves(bench: Bench) -> None:
    parent = bench.clean([0])[0]
    torch.testing.assert_close(parent, run_alone(bench, 0, None, 0), rtol=1e-4, atol=1e-4)
    text, noise = bench.encode(1), bench.noise(1)
    jobs = [bench.resumed(text, parent, noise, k) for k in (3, 1)]
    jobs += [bench.from_noise(text, noise, 2), bench.late_start(text, noise, 3)]
    latents = bench.run(jobs)
    for latent, k in zip(latents[:2], (3, 1), strict=True):
        torch.testing.assert_close(latent, run_alone(bench, 1, parent, k), rtol=1e-4, atol=1e-4)
    assert all(latent.shape == parent.shape for latent in latents)


def test_a_picture_of_the_prompt_scores_higher_than_another(bench: Bench) -> None:
    latent = bench.clean([2])[2]
    own, other = bench.score([latent, latent], [2, 0])
    assert own > other


def test_a_unit_measures_every_skip_beside_its_controls(bench: Bench) -> None:
    item = measure_unit(bench, Unit(Half.FIT, 1, (Partner(0, 0.8),), random_parent=2))
    skips = len(SETTINGS.skips)
    assert [len(item[name]) for name in ("late_start", "fewer_steps", "random_parent")] == [skips] * 3
    (partner,) = item["partners"]
    assert (partner["concept"], partner["similarity"], len(partner["cached"])) == ("red apple", 0.8, skips)
    (again,) = bench.score([bench.clean([1])[1]], [1])
    assert item["uncached"] == pytest.approx(again, abs=1e-5)


def test_seeds_are_closer_the_more_is_skipped(bench: Bench) -> None:
    item = measure_reseed(bench, 0)
    assert item["uncached"] > 0
    assert item["cached"][-1] < item["uncached"]


def test_a_chain_and_its_control_part_at_depth_two(bench: Bench) -> None:
    chain = Chain(ChainSetting(Skip(50, 2), Band(0.5, 1.0)), (0, 1, 2))
    (item,) = measure_chains(bench, [chain])
    assert item["chain"][0] == item["control"][0]
    assert item["chain"][1] != item["control"][1]
    assert [point.depth for point in read_depths([item, {**item, "concept": "another"}])] == [1, 2]
    assert np.isfinite(item["uncached"]).all()


def test_a_folder_that_is_no_clip_model_is_refused() -> None:
    with pytest.raises(ScorerError, match=r"scorer .* holds no readable config.json"):
        ClipScorer(BUNDLED / "emoji", torch.device("cpu"))
    with pytest.raises(ScorerError, match=r"scorer .* is a clip_text_model model"):
        ClipScorer(BUNDLED / "emoji" / "text_encoder", torch.device("cpu"))
