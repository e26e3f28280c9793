"""What the tiny pipelines of all families share: sizes, a stand-in for the autoencoder, random embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import FrozenDict
from PIL import Image
from torch import nn
from transformers import BatchFeature

from tests.zoo import TEXT, TEXT_WIDTH

CHANNELS = 4  # of a latent
SIZE = {"height": 64, "width": 64, "num_frames": 9}
STEPS = 12  # the shortest run in which every method skips


class StandIn(nn.Module):
    """In the place of a part that a pipeline asks for, and that latents do not depend on."""

    dtype, device = torch.float32, torch.device("cpu")


class Vae(StandIn):
    """Encodes an image or video by picking pixels: a condition to go on with, and nothing else.

    Attributes answer to the names under which the pipelines look for an autoencoder's compression.
    """

    def __init__(self, spatial: int = 8, temporal: int = 4, channels: int = CHANNELS) -> None:
        super().__init__()
        self.spatial_compression_ratio, self.temporal_compression_ratio = spatial, temporal
        self.temperal_downsample = [False, True, True]
        self.register_buffer("latents_mean", torch.zeros(channels))
        self.register_buffer("latents_std", torch.ones(channels))
        self.config = FrozenDict(
            z_dim=channels,
            latent_channels=channels,
            latents_mean=[0.0] * channels,
            latents_std=[1.0] * channels,
            scaling_factor=1.0,
            scale_factor_temporal=temporal,
            scale_factor_spatial=spatial,
            temporal_compression_ratio=temporal,
            spatial_compression_ratio=spatial,
            block_out_channels=[8] * 4,
            invert_scale_latents=False,
            cache_mag_vae=True,
            timestep_conditioning=False,
        )

    def decode(self, latent: torch.Tensor, return_dict: bool = True) -> tuple[torch.Tensor]:
        """(B, C, f, h, w) -> (B, 3, F, H, W), for pipelines that decode what they then leave aside."""
        del return_dict
        frames = 1 + (latent.shape[2] - 1) * self.temporal_compression_ratio
        size = [side * self.spatial_compression_ratio for side in latent.shape[-2:]]
        grey = latent.mean(1, keepdim=True).expand(-1, 3, -1, -1, -1)
        return (nn.functional.interpolate(grey, (frames, *size)),)

    def encode(self, video: torch.Tensor, return_dict: bool = True) -> Any:
        """(B, 3, F, H, W) -> the distribution of (B, C, f, h, w), which is one point."""
        del return_dict
        picked = video[:, :, :: self.temporal_compression_ratio]
        picked = picked[..., :: self.spatial_compression_ratio, :: self.spatial_compression_ratio].mean(1)
        channels = torch.arange(1, self.config.latent_channels + 1).view(-1, 1, 1, 1)
        latent = picked[:, None] * channels / self.config.latent_channels
        point = SimpleNamespace(mode=lambda: latent, sample=lambda generator=None: latent)
        return SimpleNamespace(latent_dist=point)


class Vision(StandIn):
    """Image processor and image encoder in one: tokens made of the picture's pixels."""

    def __init__(self, width: int, length: int = 3) -> None:
        super().__init__()
        self.shape = (1, length, width)

    def forward(self, images: torch.Tensor | Image.Image | None = None, **inputs: Any) -> Any:
        """Pixel values of `images`, or the tokens of pixel values as a model's hidden states."""
        if isinstance(images, Image.Image):
            images = to_tensor(images)[None]
        if images is not None:
            return BatchFeature({"pixel_values": images})
        pixels = inputs["pixel_values"].flatten(1)
        tokens = pixels[:1, : prod(self.shape)].reshape(self.shape) - 0.5
        return SimpleNamespace(hidden_states=[tokens, tokens], last_hidden_state=tokens)


class Safety(StandIn):
    """A stand-in for Cosmos' guardrail, without which its pipelines refuse to run."""

    def check_text_safety(self, text: str) -> bool:
        """Prompts are given as embeddings here."""
        del text
        return True


def picture(batch: int = 1) -> torch.Tensor:
    """An image, (batch, 3, H, W) from 0 to 1."""
    generator = torch.Generator().manual_seed(7)
    return torch.rand(batch, 3, SIZE["height"], SIZE["width"], generator=generator)


def to_pil(image: torch.Tensor) -> Image.Image:
    """(3, H, W) from 0 to 1 as pipelines take it that ask an image for its size."""
    return Image.fromarray((image.movedim(0, -1) * 255).byte().numpy())


def to_tensor(image: Image.Image) -> torch.Tensor:
    """The way back."""
    return torch.from_numpy(np.array(image)).movedim(-1, 0) / 255


def embeddings(
    batch: int, *names: str, length: int = TEXT, width: int = TEXT_WIDTH, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Random text for each name, and for the same name behind `negative_`."""
    generator = torch.Generator().manual_seed(seed)
    return {
        prefix + name: torch.randn(batch, length, width, generator=generator)
        for name in names
        for prefix in ("", "negative_")
    }


def masks(batch: int, *names: str, length: int = TEXT) -> dict[str, torch.Tensor]:
    """Masks for each name, and for the same name behind `negative_`, whose text is shorter."""
    found = {}
    for name in names:
        found[name] = torch.ones(batch, length, dtype=torch.long)
        found[f"negative_{name}"] = found[name].clone()
        found[f"negative_{name}"][:, length // 2 :] = 0
    return found


@dataclass(frozen=True, eq=False)  # compared and hashed by identity
class Family:
    """A pipeline of a family and how to call it.

    Attributes:
        name: of the row.
        build: makes the pipeline, always the same.
        inputs: (batch, is_guided) -> what its call needs besides steps, generator and output type.
        size: arguments for height, width and frames.
        max_batch: as many prompts as the pipeline can take.
        has_motion: whether its tokens are those of its frames, so that motion can be measured.
    """

    name: str
    build: Callable[[], Any]
    inputs: Callable[[int, bool], dict[str, Any]]
    size: dict[str, int] | None = None
    max_batch: int = 2
    has_motion: bool = True

    def sample(
        self, pipe: Any, batch: int = 1, is_guided: bool = True, steps: int = STEPS, **call: Any
    ) -> torch.Tensor:
        """Latents of one generation."""
        size = SIZE if self.size is None else self.size
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            frames = pipe(
                num_inference_steps=steps,
                generator=generator,
                output_type="latent",
                **(size | self.inputs(batch, is_guided) | call),
            ).frames
        return torch.cat(frames) if isinstance(frames, list) else frames
