"""The schedulers from which a run can resume, and the history that they need for it.

Only public methods of diffusers are used. Not supported: ancestral and SDE schedulers (they draw noise in every step),
PNDM and higher orders (wrong by 14 to 23 percent without their history, measured).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

from diffcache_core.cache.space import sha256_of_json
from diffcache_core.choices import SCHEDULERS

_CLASSES: dict[str, tuple[Any, dict[str, Any]]] = {
    "DDIM": (DDIMScheduler, {}),
    "Euler": (EulerDiscreteScheduler, {}),
    "DPM++2M": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
}
assert tuple(_CLASSES) == SCHEDULERS


def served_class(name: str) -> type[Any]:
    cls: type[Any] = _CLASSES[name][0]
    return cls


def build_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """Returns a diffusers scheduler with the model's own noise schedule. `config` is that of the pipeline's scheduler.

    All fields of the config are used. The library itself would ignore fields that were not in the file, even those that
    the pipeline has corrected.
    """
    cls, extra = _CLASSES[name]
    return cls.from_config({k: v for k, v in config.items() if k != "_use_default_values"}, **extra)


class Schedule:
    """The schedule of one run: N `steps`, from step `begin` on. Each run has its own, because schedulers hold state.

    Latents, (1, channels, h, w), are in the scheduler's own coordinates: those that `scheduler.step` takes and returns.
    """

    def __init__(self, name: str, config: Mapping[str, Any], steps: int, begin: int = 0, device: str = "cpu") -> None:
        self.name, self.config, self.steps, self.begin, self.device = name, config, steps, begin, device
        self._scheduler = build_scheduler(name, config)
        self._scheduler.set_timesteps(steps, device=device)
        self.timesteps: torch.Tensor = self._scheduler.timesteps  # (N,); never slice it in place: DPM++ gives inf
        if hasattr(self._scheduler, "set_begin_index"):  # not DDIM, which finds the step by its timestep
            self._scheduler.set_begin_index(begin)  # needed for 0 too: Karras sigmas may have a timestep twice

    @property
    def digest(self) -> str:
        """Returns a digest of class and config. A `Trajectory` state can be used only with the same digest."""
        config = {k: v for k, v in self._scheduler.config.items() if not k.startswith("_")}
        return sha256_of_json([self.name, {k: str(v) for k, v in config.items()}])

    def at(self, begin: int) -> Schedule:
        """Returns a new schedule that begins at another step."""
        return Schedule(self.name, self.config, self.steps, begin, self.device)

    def start(self, noise: torch.Tensor) -> torch.Tensor:
        """Returns the latent before step 0."""
        return noise * self._scheduler.init_noise_sigma

    def noised(self, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Returns x_begin = a x_0 + s noise, the latent before step `begin`."""
        return self._scheduler.add_noise(clean, noise, self.timesteps[self.begin : self.begin + 1])

    def model_input(self, i: int, x: torch.Tensor) -> torch.Tensor:
        return self._scheduler.scale_model_input(x, self.timesteps[i])

    def step(self, i: int, output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Returns the latent after step `i`, from the denoiser's `output` for this step."""
        return self._scheduler.step(output, self.timesteps[i], x, return_dict=False)[0]

    @contextlib.contextmanager
    def restored_on_error(self) -> Iterator[None]:
        """Restores the scheduler if the step raises. So a step that ran out of memory half-way can be repeated."""
        before = {k: list(v) if isinstance(v, list) else v for k, v in vars(self._scheduler).items()}
        try:
            yield
        except Exception:
            vars(self._scheduler).update(before)
            raise

    def step_mixing(self, output: torch.Tensor, x: torch.Tensor, noise: torch.Tensor, phi: float) -> torch.Tensor:
        """Makes the first step of a run that begins with x_k of another run, and returns the latent after it:
        x_{k+1} = a x_0 + s (cos(phi) eps + sin(phi) noise).

        x_0 and eps are the denoiser's prediction at `begin`; `noise` is the request's own, so that seeds stay
        different. The caller continues with a new schedule `at(begin + 1)`, because the history starts there.
        """
        timestep = self.timesteps[self.begin]
        if isinstance(self._scheduler, DPMSolverMultistepScheduler):
            self._scheduler._init_step_index(timestep)  # step() does this first; convert_model_output needs it
            clean = self._scheduler.convert_model_output(output, sample=x)
        else:
            clean = self._scheduler.step(output, timestep, x).pred_original_sample
        here = self.at(self.begin)
        zeros, ones = torch.zeros_like(x), torch.ones_like(x)
        eps = (x - here.noised(clean, zeros)) / here.noised(zeros, ones)
        if self.begin + 1 == self.steps:
            return clean
        mixed = torch.cos(torch.tensor(phi)) * eps + torch.sin(torch.tensor(phi)) * noise
        return self.at(self.begin + 1).noised(clean, mixed)

    def history(self) -> dict[str, torch.Tensor]:
        """Returns the tensors that a resume at this step needs besides the latent. Only DPM++ 2M has any: its last
        prediction of x_0."""
        if not isinstance(self._scheduler, DPMSolverMultistepScheduler):
            return {}
        last = self._scheduler.model_outputs[-1]
        return {} if last is None else {"model_output": last}

    def restore(self, history: Mapping[str, torch.Tensor]) -> None:
        """Restores the history, so that the next step is identical to that of the uninterrupted run."""
        if history:
            self._scheduler.model_outputs[-1] = history["model_output"]
            self._scheduler.lower_order_nums = 1
