"""Encoder and decoder of the causal video autoencoder: levels of resnet blocks with resampling between them.

Attributes have the names of the released weights. All tensors are (B, C, T, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from keystep.errors import unknown
from keystep.models.opensora_plan.vae_layers import (
    CausalConv3d,
    Downsample,
    FrameAttention,
    FrameConv2d,
    ResnetBlock2D,
    ResnetBlock3D,
    SpatialUpsample2x,
    TimeDownsampleRes2x,
    TimeUpsampleRes2x,
    group_norm,
)

IMAGE_CHANNELS = 3
RESNETS = {"ResnetBlock2D": ResnetBlock2D, "ResnetBlock3D": ResnetBlock3D}
# By the names of the config; an empty name = the level keeps its size.
SPATIAL_DOWN = {"Downsample": Downsample, "": None}
TEMPORAL_DOWN = {"TimeDownsampleRes2x": TimeDownsampleRes2x, "": None}
SPATIAL_UP = {"SpatialUpsample2x": SpatialUpsample2x, "": None}
TEMPORAL_UP = {"TimeUpsampleRes2x": TimeUpsampleRes2x, "": None}

Resampler = Callable[[int], nn.Module] | None


@dataclass(frozen=True)
class Level:
    """One resolution of a stack.

    Attributes:
        channels: width after its resnet blocks.
        resnet: makes a block of (channels in, channels out).
        spatial: makes the layer that changes height and width, or None.
        temporal: makes the layer that changes the number of frames, or None.
    """

    channels: int
    resnet: Callable[[int, int], nn.Module]
    spatial: Resampler
    temporal: Resampler


def levels_of(
    channels: Sequence[int],
    resnets: Sequence[str],
    spatial: tuple[str, Sequence[str], Mapping[str, Resampler]],
    temporal: tuple[str, Sequence[str], Mapping[str, Resampler]],
) -> list[Level]:
    """The levels that a config's lists of names describe, finest first.

    Args:
        channels: of every level.
        resnets: names of the kinds of resnet block.
        spatial: (config field, its names, what they may be).
        temporal: likewise.

    Raises:
        ValueError: a list of another length, or an unknown name.
    """
    fields = {"resnet_blocks": (resnets, RESNETS)} | {
        field: (names, known) for field, names, known in (spatial, temporal)
    }
    for field, (names, known) in fields.items():
        if len(names) != len(channels):
            raise ValueError(
                f"config.{field}: given {len(names)} names, allowed: {len(channels)}, one a level"
            )
        for name in names:
            if name not in known:
                raise unknown(f"layer in config.{field}", name, known)
    return [
        Level(width, RESNETS[resnets[i]], spatial[2][spatial[1][i]], temporal[2][temporal[1][i]])
        for i, width in enumerate(channels)
    ]


class Middle(nn.Module):
    """Attention between two resnet blocks, at the coarsest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock3D(channels, channels)
        self.attn_1 = FrameAttention(channels)
        self.block_2 = ResnetBlock3D(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Same size as the input."""
        return self.block_2(self.attn_1(self.block_1(x)))


class DownLevel(nn.Module):
    """Resnet blocks, then fewer pixels, then fewer frames."""

    def __init__(self, in_channels: int, level: Level, num_blocks: int) -> None:
        super().__init__()
        self.block = resnets_of(in_channels, level, num_blocks)
        self.downsample = resampler(level.spatial, level.channels)
        self.time_downsample = resampler(level.temporal, level.channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Smaller where the level says so."""
        return self.time_downsample(self.downsample(self.block(x)))


class UpLevel(nn.Module):
    """Resnet blocks, then more pixels, then more frames."""

    def __init__(self, in_channels: int, level: Level, num_blocks: int) -> None:
        super().__init__()
        self.block = resnets_of(in_channels, level, num_blocks)
        self.upsample = resampler(level.spatial, level.channels)
        self.time_upsample = resampler(level.temporal, level.channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Larger where the level says so."""
        return self.time_upsample(self.upsample(self.block(x)))


class Encoder(nn.Module):
    """Video (B, 3, T, H, W) to features of the latents.

    Args:
        levels: finest first.
        first_channels: width after the first convolution.
        out_channels: of the result.
        num_blocks: resnet blocks of every level.
    """

    def __init__(self, levels: Sequence[Level], first_channels: int, out_channels: int, num_blocks: int):
        super().__init__()
        self.conv_in = FrameConv2d(IMAGE_CHANNELS, first_channels)
        widths = [first_channels, *(level.channels for level in levels)]
        self.down = nn.ModuleList(
            DownLevel(width, level, num_blocks) for width, level in zip(widths[:-1], levels, strict=True)
        )
        self.mid = Middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], out_channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, t, h, w)."""
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Features of the latents (B, C, t, h, w) to video.

    Args:
        levels: finest first; they run in reverse.
        in_channels: of the features.
        num_blocks: resnet blocks of every level.
    """

    def __init__(self, levels: Sequence[Level], in_channels: int, num_blocks: int) -> None:
        super().__init__()
        widths = [*(level.channels for level in levels), levels[-1].channels]
        self.conv_in = CausalConv3d(in_channels, widths[-1], 3)
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(
            UpLevel(width, level, num_blocks) for width, level in zip(widths[1:], levels, strict=True)
        )
        self.norm_out = group_norm(widths[0])
        self.conv_out = CausalConv3d(widths[0], IMAGE_CHANNELS, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W)."""
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


def resnets_of(in_channels: int, level: Level, num_blocks: int) -> nn.Sequential:
    """A level's resnet blocks; the first one changes the width."""
    widths = [in_channels, *[level.channels] * num_blocks]
    return nn.Sequential(*(level.resnet(*pair) for pair in zip(widths, widths[1:], strict=False)))


def resampler(make: Resampler, channels: int) -> nn.Module:
    """The layer, or nothing."""
    return nn.Identity() if make is None else make(channels)
