"""Rectified-flow sampling with timesteps that depend on the size and length of the video.

After Open-Sora v1.2.0, `opensora/schedulers/rf/`. diffusers' flow-match Euler scheduler cannot stand in: its
velocity has the opposite sign, it does not derive its shift from the size of a video, and it rounds timesteps
to sigmas before it takes their differences.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.outputs import BaseOutput
from torch import Tensor

from keystep.errors import require

# The VAE makes 5 latent frames of 17 frames.
CHUNK_FRAMES, CHUNK_LATENT_FRAMES = 17, 5


@dataclass
class RectifiedFlowOutput(BaseOutput):
    """What `RectifiedFlowScheduler.step` returns.

    Args:
        prev_sample: the less noisy latents, float32.
    """

    prev_sample: Tensor


class RectifiedFlowScheduler(SchedulerMixin, ConfigMixin):
    """Euler steps along straight lines from noise (timestep 1000) to video (timestep 0).

    Args:
        num_train_timesteps: the timestep of pure noise.
        base_size: side in pixels of the square image whose timesteps are evenly spaced; larger and longer
            videos spend more steps near the noise.

    Attributes:
        timesteps: (N,) float32, decreasing; empty before `set_timesteps`.
        sigmas: (N + 1,) share of noise at each timestep, then 0.
        num_inference_steps: N.
    """

    order = 1
    init_noise_sigma = 1.0
    prediction_type = "reverse_flow"  # the model's velocity points from noise to video

    @register_to_config
    def __init__(self, num_train_timesteps: int = 1000, base_size: int = 512) -> None:
        self.timesteps = torch.empty(0)
        self.sigmas = torch.empty(0)
        self._spans = torch.empty(0)
        self.num_inference_steps = 0
        self._step_index: int | None = None

    @property
    def step_index(self) -> int | None:
        """Which timestep the next `step` is at; None before the first."""
        return self._step_index

    def set_timesteps(
        self,
        num_inference_steps: int,
        device: torch.device | str | None = None,
        *,
        height: int,
        width: int,
        num_frames: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Lay out the timesteps of a generation.

        Args:
            num_inference_steps: N.
            device: of `timesteps` and `sigmas`; None is the CPU.
            height, width: of the video in pixels.
            num_frames: of the video, not of its latents; 1 for an image.
            dtype: what the sizes are rounded to first. The reference holds them in the model's type: 854 is
                856 in bfloat16.

        Raises:
            ValueError: a number is out of range.
        """
        for name, value in (
            ("num_inference_steps", num_inference_steps),
            ("height", height),
            ("width", width),
        ):
            require(value >= 1, name, value, "1 or more")
        allowed = f"1 for an image, or {CHUNK_FRAMES} or more"
        require(num_frames == 1 or num_frames >= CHUNK_FRAMES, "num_frames", num_frames, allowed)
        end = self.config["num_train_timesteps"]
        even = torch.tensor([(1.0 - i / num_inference_steps) * end for i in range(num_inference_steps)]) / end
        ratio = self._ratio(height, width, num_frames, dtype)
        timesteps = ratio * even / (1 + (ratio - 1) * even) * end
        # Rounding may lead above the end, where no frame counts as noise any more: the reference then loses
        # its first step.
        self.timesteps = timesteps.clamp(max=end).to(device)
        stops = torch.cat([self.timesteps, self.timesteps.new_zeros(1)])
        self.sigmas = stops / end
        self._spans = -stops.diff() / end
        self.num_inference_steps = num_inference_steps
        self._step_index = None

    def _ratio(self, height: int, width: int, num_frames: int, dtype: torch.dtype) -> Tensor:
        """How much noisier than an image of the base size a video is at the same share of steps, (1,)."""
        height_1, width_1, frames_1 = torch.tensor([height, width, num_frames], dtype=dtype).split(1)
        if num_frames > 1:
            frames_1 = frames_1 // CHUNK_FRAMES * CHUNK_LATENT_FRAMES
        area_1 = height_1 * width_1 / self.config["base_size"] ** 2
        return area_1.sqrt() * frames_1.sqrt()

    def step(
        self, model_output: Tensor, timestep: float | Tensor, sample: Tensor, return_dict: bool = True
    ) -> RectifiedFlowOutput | tuple[Tensor]:
        """Go from `timestep` to the next one.

        Args:
            model_output: velocity after guidance, from noise towards the video; of the sample's shape.
            timestep: one of `timesteps`. It is looked at in the first step only; later ones follow in order.
            sample: noisy latents.
            return_dict: False gives a plain tuple.

        Returns:
            ``.prev_sample``: latents in float32, in which small steps do not get lost.

        Raises:
            ValueError: the timestep is none of `timesteps`, or all steps are done.
        """
        if self._step_index is None:
            self._step_index = self._index_of(timestep)
        last = self.num_inference_steps - 1
        allowed = f"0 to {last}; call set_timesteps for a new generation"
        require(self._step_index <= last, "step_index", self._step_index, allowed)
        prev_sample = sample.float() + model_output.float() * self._spans[self._step_index]
        self._step_index += 1
        return RectifiedFlowOutput(prev_sample=prev_sample) if return_dict else (prev_sample,)

    def _index_of(self, timestep: float | Tensor) -> int:
        times = self.timesteps.tolist()
        time = float(timestep)
        require(time in times, "timestep", time, "one of scheduler.timesteps; call set_timesteps first")
        return times.index(time)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Latents as noisy as they are at a timestep.

        Args:
            original_samples: noise-free latents, (B, ...).
            noise: standard normal, likewise.
            timesteps: () or (B,).
        """
        clean = 1 - timesteps.float() / self.config["num_train_timesteps"]
        clean = clean.reshape(-1, *[1] * (original_samples.ndim - 1))
        return clean * original_samples + (1 - clean) * noise
