"""Blueprints: what a released model is made of and what its calls look like. Data, a dozen lines each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from keystep.errors import require

Latent = tuple[int, int, int]  # latent frames, height, width
Inputs = dict[str, Any]
LATENT_PIXELS = 8  # a latent stands for so many rows and columns, in all of these models


@dataclass(frozen=True)
class Video:
    """Size of a video: pixels and frames."""

    height: int
    width: int
    num_frames: int


def _nothing(config: Mapping[str, Any], latent: Latent, rows: int, dtype: torch.dtype) -> Inputs:
    del config, latent, rows, dtype
    return {}


@dataclass(frozen=True)
class Blueprint:
    """A released model without its weights.

    Attributes:
        transformer: `module:class` of the denoiser.
        depth: its argument that counts the blocks of each list.
        video: the size that is planned when none is given.
        num_steps: sampling steps, likewise.
        count_latent_frames: latent frames from frames; ValueError for a number that the model cannot make.
        num_text_tokens: length of the text, padded.
        config: arguments as released, as far as they differ from the class's defaults.
        length: the argument that is the number of latent frames, if there is one.
        pixel_multiple: what height and width divide by; 1 = what fills no latent is cut off.
        more_inputs: arguments of a call beyond latents, timestep and text; from (all of the config, latent
            size, rows, dtype), on the default device.
        text_width: channels of the text encoder.
        num_extra_evaluations: evaluations that the sampler makes beyond the steps.
    """

    transformer: str
    depth: str
    video: Video
    num_steps: int
    count_latent_frames: Callable[[int], int]
    num_text_tokens: int
    config: Mapping[str, Any] = field(default_factory=dict)
    length: str = ""
    pixel_multiple: int = 2 * LATENT_PIXELS
    more_inputs: Callable[[Mapping[str, Any], Latent, int, torch.dtype], Inputs] = _nothing
    text_width: int = 4096
    num_extra_evaluations: int = 0

    def latent_of(self, video: Video) -> Latent:
        """The latent size of a video.

        Raises:
            ValueError: a size that the model cannot make.
        """
        for name, pixels in (("height", video.height), ("width", video.width)):
            is_fit = pixels > LATENT_PIXELS and pixels % self.pixel_multiple == 0
            require(is_fit, name, pixels, f"pixels > {LATENT_PIXELS}, multiples of {self.pixel_multiple}")
        frames = self.count_latent_frames(video.num_frames)
        return frames, video.height // LATENT_PIXELS, video.width // LATENT_PIXELS


def every_fourth(num_frames: int) -> int:
    """Latent frames of a causal autoencoder: the first frame alone, then one for every four."""
    near = max(0, num_frames - 1) // 4 * 4 + 1
    require(num_frames % 4 == 1, "frames", num_frames, f"4 n + 1; nearest: {near} and {near + 4}")
    return (num_frames - 1) // 4 + 1


def chunks_of_17(num_frames: int) -> int:
    """Latent frames of Open-Sora's autoencoder: 5 for every 17 frames, a quarter of those that remain."""
    chunks, rest = divmod(num_frames, 17)
    return 5 * chunks + -(-rest // 4)


def only(latent_frames: Mapping[int, int]) -> Callable[[int], int]:
    """Latent frames of a model that was trained for a few lengths: {frames: latent frames}."""

    def count(num_frames: int) -> int:
        allowed = " or ".join(map(str, latent_frames))
        require(num_frames in latent_frames, "frames", num_frames, allowed)
        return latent_frames[num_frames]

    return count
