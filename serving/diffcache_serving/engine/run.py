"""One request on the device: from noise or a state, step by step, to the final latent. Device thread only."""

from __future__ import annotations

import math

import torch

from diffcache_core.cache.states import StateKind
from diffcache_core.generation import GenerationRequest
from diffcache_serving.engine.adapter import StableDiffusion
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
        model: StableDiffusion,
        request: GenerationRequest,
        text: TextEncoding,
        found: Found,
        keep: tuple[int, ...],
    ) -> None:
        """`keep`: the steps k at which to leave a `Trajectory` state."""
        self.text, self.steps, self.keep = text, request.steps, keep
        self.i = found.k  # steps done or skipped
        self.last_step = 0
        self.captured: list[CapturedState] = []
        self._model = model
        self._mix_noise: torch.Tensor | None = None
        if isinstance(found, Exact):
            self.x = found.tensors["latent"].to(model.device)
            return
        self._schedule = model.schedule(request.steps, found.k)
        noise = model.noise(request)
        if not isinstance(found, Resume):
            self.x = self._schedule.start(noise)
            return
        latent = found.tensors["latent"].to(model.device)
        if found.kind is StateKind.CLEAN:
            self.x = self._schedule.noised(latent, noise)
        else:
            self.x = latent
            if found.own_run:
                self._schedule.restore({k: v.to(model.device) for k, v in found.tensors.items() if k != "latent"})
            else:
                self._mix_noise = noise

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
        return self._schedule.model_input(self.i, self.x), self._schedule.timesteps[self.i]

    def advance(self, output: torch.Tensor) -> None:
        """Takes the step that `output` was predicted for: whole, or not at all where it raises.

        Raises NotFinite if a state is to be left here and cannot.
        """
        schedule, after = self._schedule, self.i + 1
        with schedule.restored_on_error():
            if self._mix_noise is not None:
                x = schedule.step_mixing(output, self.x, self._mix_noise, RESEED_PHI)
                schedule = schedule.at(after) if after < self.steps else schedule
            else:
                x = schedule.step(self.i, output, self.x)
            if after in self.keep:
                self.captured.append(_captured(StateKind.TRAJECTORY, after, {"latent": x, **schedule.history()}))
        self.x, self.i, self._schedule, self._mix_noise = x, after, schedule, None

    def finish(self) -> tuple[object, bool]:
        """The picture and whether it was flagged; the final latent is captured. Raises NotFinite."""
        final = _captured(StateKind.CLEAN, 0, {"latent": self.x})
        picture = self._model.decode(self.x)
        self.captured.append(final)
        return picture


def _captured(kind: StateKind, k: int, tensors: dict[str, torch.Tensor]) -> CapturedState:
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    check_finite("latent", copies.values())
    return CapturedState(kind, k, copies)
