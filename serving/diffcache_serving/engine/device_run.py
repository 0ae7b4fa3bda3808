"""One request on the device, from noise or a state, step by step, to the final latent. Device thread only."""

from __future__ import annotations

import math

import torch
from PIL import Image

from diffcache_core.cache.states import StateKind
from diffcache_core.generation import GenerationRequest
from diffcache_serving.engine.diffusion_model import DiffusionModel
from diffcache_serving.engine.schedulers.schedule import Schedule
from diffcache_serving.values.finite import check_finite
from diffcache_serving.values.found import CapturedState, Exact, Found, Resume
from diffcache_serving.values.text import TextEncoding

RESEED_PHI = math.pi / 4
"""Angle in radians that mixes the noise of a `Trajectory` state with the request's own noise. A higher value makes
seeds differ more, but moves the state further from its trajectory. At pi/4 both noises have the same weight."""


class DeviceRun:
    """The latent of one request, and the step that it has reached."""

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
        """Begins at latent `x` (1, channels, h, w) before step `i` of N `steps`. Without a schedule no step is left.

        Args:
            keep: the steps k at which to capture a `Trajectory` state.
            mix_noise: the request's own noise, if `x` has the noise of another run: see Schedule.step_mixing.
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
        """Returns the run of a request, from noise or from what the look-up found."""
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
        """Returns the rows in the denoiser call: with guidance 2 (negative prompt and prompt), else 1."""
        return len(self.text.conditioning)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape)

    @property
    def is_denoised(self) -> bool:
        return self.i >= self.steps

    def denoiser_input(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns scaled latent (1, channels, h, w) and scalar timestep of the next step."""
        assert self._schedule is not None
        return self._schedule.model_input(self.i, self.x), self._schedule.timesteps[self.i]

    def advance(self, output: torch.Tensor) -> None:
        """Makes the step for which `output` was predicted. If it raises, the run is unchanged.

        Raises NotFinite if a state is to be captured here and holds NaN or infinity.
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
        """Captures the final latent. Returns the picture, and whether the safety checker flagged it.

        Raises NotFinite if latent or picture holds NaN or infinity.
        """
        final = _captured(StateKind.CLEAN, 0, {"latent": self.x})
        picture = self._model.decode(self.x)
        self.captured.append(final)
        return picture


def _captured(kind: StateKind, k: int, tensors: dict[str, torch.Tensor]) -> CapturedState:
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    check_finite("latent", copies.values())
    return CapturedState(kind, k, copies)
