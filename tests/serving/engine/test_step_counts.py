"""A number of steps is drawn whole, or refused with the nearest that can be."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from diffcache_core.choices import SCHEDULERS
from diffcache_core.generation import InvalidRequest
from diffcache_serving.engine.schedulers.schedule import Schedule
from diffcache_serving.engine.schedulers.step_counts import StepCounts
from tests.serving.folders import EMOJI_FOLDER

OWN = json.loads((EMOJI_FOLDER / "scheduler" / "scheduler_config.json").read_text())
COUNTS = (1, 2, 8, 30)
LARGE = (499, 998, 999, 1000)


def ends_finite(name: str, config: dict[str, Any], steps: int) -> bool:
    schedule = Schedule(name, config, steps)
    x = schedule.start(torch.ones(1, 1, 1, 2))
    for i in range(steps):
        x = schedule.step(i, 0.1 * schedule.model_input(i, x), x)
    return bool(torch.isfinite(x).all())


def can(counts: StepCounts, steps: int) -> bool:
    try:
        counts.check(steps)
    except InvalidRequest:
        return False
    return True


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("sigmas", ["", "use_karras_sigmas", "use_exponential_sigmas"])
@pytest.mark.parametrize("betas", ["scaled_linear", "squaredcos_cap_v2"])
def test_what_is_not_refused_is_drawn(name: str, spacing: str, sigmas: str, betas: str) -> None:
    config = OWN | {"timestep_spacing": spacing, "beta_schedule": betas} | ({sigmas: True} if sigmas else {})
    counts = StepCounts(name, config)
    for steps in COUNTS:
        assert can(counts, steps), steps
        assert ends_finite(name, config, steps), steps
    for steps in LARGE:
        if can(counts, steps):
            schedule = Schedule(name, config, steps)
            assert len(schedule.timesteps) == steps
            assert name != "DDIM" or 0 <= int(schedule.timesteps.min()) <= int(schedule.timesteps.max()) < 1000


@pytest.mark.parametrize(
    ("name", "fields", "steps", "told"),
    [
        ("DDIM", {"timestep_spacing": "leading", "steps_offset": 1}, 1000, "try 999; the largest is 999"),
        ("DDIM", {"timestep_spacing": "trailing"}, 998, "try 997; the largest is 1000"),
        ("Euler", {"timestep_spacing": "trailing"}, 499, "try 498; the largest is 1000"),
        ("DPM++2M", {"timestep_spacing": "linspace"}, 1000, "try 999; the largest is 999"),
        ("DDIM", {"num_train_timesteps": 100}, 101, "try 100; the largest is 100"),
        ("DDIM", {"trained_betas": [0.01] * 50}, 50, "correct its scheduler_config.json"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_what_can(
    name: str, fields: dict[str, Any], steps: int, told: str
) -> None:
    with pytest.raises(InvalidRequest, match=told):
        StepCounts(name, OWN | fields).check(steps)


def test_karras_sigmas_that_share_a_timestep() -> None:
    """Two of eight fall on the last timestep of a cosine schedule; the library then begins at the second."""
    config = OWN | {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2", "rescale_betas_zero_snr": False}
    timesteps = Schedule("DPM++2M", config, 8).timesteps.tolist()
    assert timesteps[0] == timesteps[1]
    assert ends_finite("DPM++2M", config, 8)
