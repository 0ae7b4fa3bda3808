"""The scheduler we serve with, made from the `scheduler_config.json` of a model whose author used another one."""

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
"""Classes of diffusers whose noise schedule is a list of betas, as ours is. Others (flow matching, EDM, CogVideoX) mean
another noise at the same timestep, so none of ours can take their place."""

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
"""What the model was trained with, and what becomes of its last latent. Where the file says nothing, the default of
the author's class counts. The other fields place the steps; there the default of the class that serves counts."""

OF_THE_PIPELINE = {"clip_sample": False, "steps_offset": 1}
"""What StableDiffusionPipeline sets in the scheduler of every author, with a warning of many lines: its latents lie
beyond -1..1, and its first timestep is 1."""


def translate(author: str, file: Mapping[str, Any], served: type[Any]) -> dict[str, Any]:
    """The config to make `served` from: it draws what the author's scheduler draws, given enough steps.

    Args:
        author: the class that the model's author saved.
        file: the content of its `scheduler_config.json`.
        served: the class to make.
    """
    file = {name: value for name, value in file.items() if not name.startswith("_")}
    if author != served.__name__:
        defaults = _defaults(author)
        file = {name: defaults[name] for name in OF_THE_MODEL if name in defaults} | file
        file.setdefault("thresholding", False)
        # Both mean that nothing is left of the noise.
        file.setdefault("set_alpha_to_one", file.get("final_sigmas_type", "zero") == "zero")
    return file | OF_THE_PIPELINE


def _defaults(author: str) -> dict[str, Any]:
    """The default of each argument; empty for a class that needs a package which is not installed."""
    parameters = inspect.signature(getattr(diffusers, author).__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
