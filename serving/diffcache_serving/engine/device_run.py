"""One request on the device: from noise or a state, step by step, to the final latent. Device thread only."""

from __future__ import annotations

import math

import torch
from PIL import Image

from diffcache_core.cache.states import StateKind
from diffcache_core.generation import GenerationRequest
from diffcache_serving.engine.diffusion_model import DiffusionModel
from diffcache_serving.engine.schedulers import Schedule
from diffcache_serving.values.finite import check_finite
from diffcache_serving.values.found import CapturedState, Exact, Found, Resume
from diffcache_serving.values.text import TextEncoding

RESEED_PHI = math.pi / 4
"""Angle between a `Trajectory` state's noise and the request's own, radians. Higher sets seeds further apart and
takes the state further from where it was; at pi/4 both noises weigh the same."""


class DeviceRun:
    """The latent of one request and where it stands."""

    def __init__(
        self,
        model: DiffusionModel,
        text: TextEncoding,
        x: torch.Tensor,
        schedule: Schedule | None,
        steps: int,
        i: int = 0,
        keep: tuple[int, ...] = (),
        mix_noise: torch.Tensor | None = None,
    ) -> None:
        """At latent `x` (1, channels, h, w) before step `i` of N `steps`; without a schedule nothing is left to run.

        Args:
            keep: the steps k at which to leave a `Trajectory` state.
            mix_noise: the request's own noise, where `x` has another run's: see Schedule.step_mixing.
        """
        self.text, self.x, self.steps, self.i, self.keep = text, x, steps, i, keep
        self.last_step = 0  # see batch.Batchable
        self.captured: list[CapturedState] = []
        self._model, self._schedule, self._mix_noise = model, schedule, mix_noise

    @classmethod
    def begin(
        cls,
        model: DiffusionModel,
        request: GenerationRequest,
        text: TextEncoding,
        found: Found,
        keep: tuple[int, ...] = (),
    ) -> DeviceRun:
        """A request's run, from noise or from what the look-up found."""
        if isinstance(found, Exact):
            latent = found.tensors["latent"].to(model.device)
            return cls(model, text, latent, None, request.steps, found.k)
        schedule, noise = model.schedule(request.steps, found.k), model.noise(request)
        if not isinstance(found, Resume):
            return cls(model, text, schedule.start(noise), schedule, request.steps, 0, keep)
        latent = found.tensors["latent"].to(model.device)
        if found.kind is StateKind.CLEAN:
            return cls(model, text, schedule.noised(latent, noise), schedule, request.steps, found.k, keep)
        if not found.own_run:
            return cls(model, text, latent, schedule, request.steps, found.k, keep, mix_noise=noise)
        schedule.restore({k: v.to(model.device) for k, v in found.tensors.items() if k != "latent"})
        return cls(model, text, latent, schedule, request.steps, found.k, keep)

    @property
    def rows(self) -> int:
        """Of the denoiser call: with guidance the prompt's and the negative prompt's."""
        return len(self.text.conditioning)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape)

    @property
    def is_denoised(self) -> bool:
        return self.i >= self.steps

    def denoiser_input(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scaled latent and scalar timestep of the step at hand."""
        assert self._schedule is not None
        return self._schedule.model_input(self.i, self.x), self._schedule.timesteps[self.i]

    def advance(self, output: torch.Tensor) -> None:
        """Takes the step that `output` was predicted for: whole, or not at all where it raises.

        Raises NotFinite if a state is to be left here and cannot.
        """
        schedule, after = self._schedule, self.i + 1
        assert schedule is not None
        with schedule.restored_on_error():
            if self._mix_noise is not None:
                x = schedule.step_mixing(output, self.x, self._mix_noise, RESEED_PHI)
                schedule = schedule.at(after) if after < self.steps else schedule
            else:
                x = schedule.step(self.i, output, self.x)
            if after in self.keep:
                self.captured.append(_captured(StateKind.TRAJECTORY, after, {"latent": x, **schedule.history()}))
        self.x, self.i, self._schedule, self._mix_noise = x, after, schedule, None

    def finish(self) -> tuple[Image.Image, bool]:
        """The picture and whether it was flagged; the final latent is captured. Raises NotFinite."""
        final = _captured(StateKind.CLEAN, 0, {"latent": self.x})
        picture = self._model.decode(self.x)
        self.captured.append(final)
        return picture


def _captured(kind: StateKind, k: int, tensors: dict[str, torch.Tensor]) -> CapturedState:
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    check_finite("latent", copies.values())
    return CapturedState(kind, k, copies)
