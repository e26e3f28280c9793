"""diffusers' 2D autoencoder on every frame of a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn


class FrameVAE(nn.Module):
    """diffusers' 2D autoencoder applied to the frames of videos, a few at a time.

    Args:
        block_out_channels: one per level; each level but the first halves rows and columns.
        micro_batch_size: frames at a time; None: all.
        config: the other arguments of diffusers' `AutoencoderKL`.

    Attributes:
        factor: pixels per latent cell, along rows and columns.
    """

    def __init__(
        self, block_out_channels: Sequence[int], micro_batch_size: int | None, **config: Any
    ) -> None:
        super().__init__()
        levels = len(block_out_channels)
        self.factor = 2 ** (levels - 1)
        self.micro_batch_size = micro_batch_size
        # named as in the released weights; Any, because its annotations are narrower than what it takes
        self.module: Any = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,  # pyright: ignore[reportArgumentType]
            up_block_types=("UpDecoderBlock2D",) * levels,  # pyright: ignore[reportArgumentType]
            block_out_channels=tuple(block_out_channels),  # pyright: ignore[reportArgumentType]
            **config,
        )

    def encode(self, video: Tensor, generator: torch.Generator | None) -> Tensor:
        """Pixels (B, 3, T, H, W) to scaled latents (B, C, T, H / factor, W / factor)."""
        posteriors = (self.module.encode(frames).latent_dist for frames in self._batches(video))
        latents = [p.mode() if generator is None else p.sample(generator) for p in posteriors]
        return self.module.config["scaling_factor"] * _to_videos(torch.cat(latents), len(video))

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, T, h, w) to pixels (B, 3, T, factor * h, factor * w)."""
        batch, _, num_frames, height, width = latents.shape
        shape = (self.module.config["out_channels"], self.factor * height, self.factor * width)
        pixels = latents.new_empty((batch * num_frames, *shape))  # joining parts would hold the video twice
        start = 0
        for frames in self._batches(latents / self.module.config["scaling_factor"]):
            pixels[start : start + len(frames)] = self.module.decode(frames).sample
            start += len(frames)
        return _to_videos(pixels, batch)

    def _batches(self, videos: Tensor) -> Sequence[Tensor]:
        frames = videos.transpose(1, 2).flatten(0, 1)
        return frames.split(self.micro_batch_size or len(frames))


def _to_videos(frames: Tensor, batch: int) -> Tensor:
    return frames.unflatten(0, (batch, -1)).transpose(1, 2)
