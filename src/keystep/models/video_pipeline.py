"""What keystep's pipelines of released models have in common: the state of a call, the steps, the output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils.outputs import BaseOutput
from diffusers.video_processor import VideoProcessor

Frames = np.ndarray | torch.Tensor | list[list[PIL.Image.Image]]
Generators = torch.Generator | list[torch.Generator] | None
StepCallback = Callable[[Any, int, torch.Tensor, dict[str, torch.Tensor]], dict[str, torch.Tensor]]


@dataclass
class VideoPipelineOutput(BaseOutput):
    """What a pipeline returns.

    Args:
        frames: of B videos, by output type: ``np`` float32 in [0, 1] (B, frames, height, width, 3); ``pt``
            the same as (B, frames, 3, height, width); ``pil`` B lists of images; ``latent`` (B, ...) as the
            transformer has them.
    """

    frames: Frames


class VideoPipeline(DiffusionPipeline):
    """Base of the pipelines; `modules` are their parts by name."""

    _callback_tensor_inputs = ["latents"]

    transformer: Any
    scheduler: Any

    def __init__(self, **modules: Any) -> None:
        super().__init__()
        self.register_modules(**modules)
        self.video_processor = VideoProcessor(do_resize=False)
        self._guidance_scale = 1.0
        self._num_timesteps = 0
        self._interrupt = False

    @property
    def guidance_scale(self) -> float:
        """Weight of the prompt against the unconditional text in the current call."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether every evaluation has an unconditional branch."""
        return self._guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        """Evaluations in the current generation."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """A callback sets ``pipe._interrupt = True`` to skip the remaining steps."""
        return self._interrupt

    def _for_each_timestep(
        self,
        latents: torch.Tensor,
        take_step: Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor],
        callback: StepCallback | None,
    ) -> torch.Tensor:
        """Latents after all timesteps of the scheduler.

        Args:
            latents: before.
            take_step: from (index, timestep, latents) to the latents after an evaluation.
            callback: of the user, see `__call__`.
        """
        timesteps = self.scheduler.timesteps
        self._num_timesteps = len(timesteps)
        pipe: Any = self  # the bar's decorator hides its signature from type checkers
        with pipe.progress_bar(total=len(timesteps)) as bar:
            for index, timestep in enumerate(timesteps):
                if self.interrupt:
                    continue
                latents = take_step(index, timestep, latents)
                if callback is not None:
                    latents = callback(self, index, timestep, {"latents": latents}).get("latents", latents)
                bar.update()
        return latents
