"""Which latent frames take part in the denoising, step by step, where some frames are given.

A frame's mask value says how: 1 = generated; 0 = given, kept as it is; between, for example 0.3 = given, kept
until the noise level has fallen to 30 %, then noised to that level and denoised with the others, so edited.
After Open-Sora v1.2.0, `opensora/schedulers/rf/__init__.py`.

Shape suffixes: N steps, B videos, T latent frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from keystep.errors import require
from keystep.models.opensora.scheduler import RectifiedFlowScheduler


class FrameSchedule:
    """The steps at which each frame is denoised.

    Args:
        mask: values in [0, 1], (B, T).
        scheduler: its timesteps are set.

    Attributes:
        active: (N, B, T), True where a frame is denoised; a row is the transformer's `frame_mask`.
        needs_noise: for each step, whether `begin` needs noise.

    Raises:
        ValueError: the mask is of another shape or range.
    """

    def __init__(self, mask: Tensor, scheduler: RectifiedFlowScheduler) -> None:
        require(mask.ndim == 2, "mask", tuple(mask.shape), "(videos, latent frames)")
        low, high = (value.item() for value in mask.aminmax())
        require(low >= 0 and high <= 1, "mask", [low, high], "values from 0 to 1")
        self._scheduler = scheduler
        times_N11 = scheduler.timesteps[:, None, None]
        mask = mask.to(times_N11)
        self.active = mask * scheduler.config["num_train_timesteps"] >= times_N11
        was_active = torch.cat([(mask == 1)[None], self.active[:-1]])
        self._starts = self.active & ~was_active
        self.needs_noise: list[bool] = self._starts.flatten(1).any(dim=1).tolist()

    def begin(self, step: int, latents: Tensor, noise: Tensor) -> Tensor:
        """Before the model call: given frames that are denoised from this step on are noised to its level.

        Args:
            step: from 0.
            latents: (B, channels, T, H, W).
            noise: standard normal, likewise; used only where `needs_noise[step]`.
        """
        noised = self._scheduler.add_noise(latents, noise, self._scheduler.timesteps[step])
        return torch.where(self._starts[step][:, None, :, None, None], noised, latents)

    def mask_velocity(self, step: int, velocity: Tensor) -> Tensor:
        """After the model call: 0 for frames that are not denoised, so that they keep their latents.

        Args:
            step: from 0.
            velocity: after guidance, (B, channels, T, H, W).
        """
        return torch.where(self.active[step][:, None, :, None, None], velocity, 0.0)
