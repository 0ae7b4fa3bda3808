"""Converts the `scheduler_config.json` of a model for our scheduler, if the model's author used another scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers

BETA_SCHEDULERS = frozenset(
    {
        "DDIMParallelScheduler",
        "DDIMScheduler",
        "DDPMParallelScheduler",
        "DDPMScheduler",
        "DEISMultistepScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSDEScheduler",
        "DPMSolverSinglestepScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "LCMScheduler",
        "LMSDiscreteScheduler",
        "PNDMScheduler",
        "SASolverScheduler",
        "TCDScheduler",
        "UniPCMultistepScheduler",
    }
)
"""Classes of diffusers whose noise schedule is a list of betas, like ours. Others (flow matching, EDM, CogVideoX) have
another noise at the same timestep, so our schedulers cannot replace them."""

OF_THE_MODEL = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
    "thresholding",
    "set_alpha_to_one",
)
"""Fields that describe the training of the model, and the treatment of its last latent. If the file does not set one of
them, the default of the author's class applies. The other fields place the steps; for them the default of the class
that we serve with applies."""

OF_THE_PIPELINE = {"clip_sample": False, "steps_offset": 1}
"""Fields that StableDiffusionPipeline sets in every scheduler, with a long warning: its latents exceed -1..1, and its
first timestep is 1."""


def translate(author: str, file: Mapping[str, Any], served: type[Any]) -> dict[str, Any]:
    """Returns the config for `served`, so that with enough steps it draws what the author's scheduler draws.

    Args:
        author: the class that the model's author saved.
        file: the content of the model's `scheduler_config.json`.
        served: the class to build.
    """
    file = {name: value for name, value in file.items() if not name.startswith("_")}
    if author != served.__name__:
        defaults = _defaults(author)
        file = {name: defaults[name] for name in OF_THE_MODEL if name in defaults} | file
        file.setdefault("thresholding", False)
        # Both fields mean that no noise remains at the end.
        file.setdefault("set_alpha_to_one", file.get("final_sigmas_type", "zero") == "zero")
    return file | OF_THE_PIPELINE


def _defaults(author: str) -> dict[str, Any]:
    """Returns the default of each argument. Empty for a class that needs a package which is not installed."""
    parameters = inspect.signature(getattr(diffusers, author).__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
