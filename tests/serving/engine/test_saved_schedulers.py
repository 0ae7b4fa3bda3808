"""The scheduler that serves draws what the scheduler of the model's author draws, whoever that was."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffcache_core.choices import SCHEDULERS
from diffcache_serving.engine.engine import Engine
from diffcache_serving.engine.loading import LoadedModel, ModelError, load_model
from diffcache_serving.engine.schedulers.saved_config import BETA_SCHEDULERS, translate
from diffcache_serving.engine.schedulers.schedule import build_scheduler, served_class
from tests.serving.conftest import EMOJI
from tests.serving.folders import edit, save_scheduler, saved_again
from tests.serving.pipeline import pipe_of

Draw = Callable[..., Awaitable[Any]]
Engines = Callable[..., Engine]

MANY_STEPS = 24
NEAR = 6.0
"""Mean difference of two pictures of one prompt and seed, of 255: two solvers at MANY_STEPS stay below 4, a clipped
latent is at 77."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_again(tmp_path_factory.mktemp("saved") / "emoji")


def load(folder: Path, scheduler: str) -> LoadedModel:
    return load_model(EMOJI.model_copy(update={"source": f"file://{folder}", "scheduler": scheduler}))


def stock(model: LoadedModel, scheduler: Any, steps: int) -> np.ndarray:
    """What diffusers' own pipeline draws with the author's scheduler, in float32."""
    pipe = type(pipe_of(model))(**pipe_of(model).components | {"scheduler": scheduler})
    pipe.set_progress_bar_config(disable=True)
    drawn = pipe(
        "red apple, noto style",
        num_inference_steps=steps,
        guidance_scale=3.0,
        width=64,
        height=64,
        generator=torch.Generator().manual_seed(1),
    )
    return np.asarray(drawn.images[0]).astype(int)


@pytest.mark.parametrize(
    ("author", "fields"),
    [
        ("EulerDiscreteScheduler", {}),
        ("EulerDiscreteScheduler", {"timestep_spacing": "linspace", "final_sigmas_type": "sigma_min"}),
        ("PNDMScheduler", {"skip_prk_steps": True}),
        ("UniPCMultistepScheduler", {}),
        ("HeunDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 0}),
    ],
    ids=["Euler", "Euler to sigma_min", "PNDM", "UniPC", "Heun"],
)
async def test_every_scheduler_draws_what_the_authors_draws(
    author: str, fields: dict[str, Any], folder: Path, engines: Engines, draw: Draw
) -> None:
    theirs = save_scheduler(folder, author, **fields)
    expected: np.ndarray | None = None
    for scheduler in SCHEDULERS:
        model = load(folder, scheduler)
        if expected is None:
            expected = stock(model, theirs, MANY_STEPS)
        drawn = await draw(engines(model), steps=MANY_STEPS)
        assert np.abs(drawn.pixels - expected).mean() < NEAR, scheduler


@pytest.mark.parametrize("author", sorted(BETA_SCHEDULERS))
@pytest.mark.parametrize("name", SCHEDULERS)
def test_nothing_is_clipped_whoever_saved_a_file_that_says_little(author: str, name: str) -> None:
    file = {"_class_name": author, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    made = build_scheduler(name, translate(author, file, served_class(name)))
    assert not made.config.get("clip_sample")
    assert made.config.steps_offset == 1
    assert not made.config.get("thresholding")
    assert made.config.beta_schedule == "scaled_linear"


@pytest.mark.parametrize("author", ["LCMScheduler", "TCDScheduler"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_authors_own_defaults_hold_for_the_noise(author: str, name: str) -> None:
    """With betas of their own where the file does not say which."""
    assert build_scheduler(name, translate(author, {}, served_class(name))).config.beta_schedule == "scaled_linear"


@pytest.mark.parametrize(("final", "to_one"), [("zero", True), ("sigma_min", False)])
def test_noise_that_the_author_leaves_is_left(final: str, to_one: bool) -> None:
    config = translate("EulerDiscreteScheduler", {"final_sigmas_type": final}, served_class("DDIM"))
    assert config["set_alpha_to_one"] is to_one


async def test_a_file_of_the_class_that_serves_draws_the_stock_pictures(
    folder: Path, engines: Engines, draw: Draw
) -> None:
    """Also one that is silent on what the pipeline puts right: the offset of the steps, and clipping."""
    theirs = save_scheduler(folder, "DDIMScheduler", timestep_spacing="leading")
    edit(
        folder / "scheduler" / "scheduler_config.json",
        lambda file: [file.pop(name) for name in ("clip_sample", "steps_offset", "set_alpha_to_one")],
    )
    theirs = type(theirs).from_pretrained(folder / "scheduler")
    model = load(folder, "DDIM")
    drawn = await draw(engines(model), steps=4)
    assert np.array_equal(drawn.pixels, stock(model, theirs, 4))


def test_a_class_that_needs_an_absent_package_is_served(folder: Path) -> None:
    """Only its file is read: LMS needs scipy to be made."""
    save_scheduler(folder, "EulerDiscreteScheduler")
    edit(folder / "model_index.json", lambda index: index.update(scheduler=["diffusers", "LMSDiscreteScheduler"]))
    assert pipe_of(load(folder, "DDIM")).scheduler.config.clip_sample is False


@pytest.mark.parametrize("author", ["FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler", "CogVideoXDDIMScheduler"])
def test_another_kind_of_noise_is_refused(author: str, folder: Path) -> None:
    save_scheduler(folder, author)
    with pytest.raises(ModelError, match=f"is of a {author}, whose noise schedule DDIM cannot take over"):
        load(folder, "DDIM")


def test_what_cannot_be_made_is_refused_by_file(folder: Path) -> None:
    save_scheduler(folder, "EulerDiscreteScheduler")
    edit(folder / "scheduler" / "scheduler_config.json", lambda file: file.update(beta_schedule="sigmoid"))
    with pytest.raises(ModelError, match=r"no DDIM can be made from .*scheduler_config.json \(sigmoid is not impl"):
        load(folder, "DDIM")
