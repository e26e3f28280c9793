"""Layers of the causal video autoencoder: no frame sees a later one, except through group statistics.

Source: PKU-YuanGroup/Open-Sora-Plan v1.1.0, `opensora/models/ae/videobase/modules/`; attributes have the
names of the released weights. All tensors are (B, C, T, H, W): samples, channels, frames, rows, columns.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.models.downsampling import Downsample2D
from torch import nn
from torch.nn import functional as F

NORM_GROUPS = 32
NORM_EPS = 1e-6
INITIAL_MIX = 2.0  # sigmoid(2) = 0.88 of a time layer's output is without weights

Tensor = torch.Tensor


class CausalConv3d(nn.Module):
    """A convolution that sees the current and earlier frames; the first one stands in for those before it."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int | tuple[int, int, int]) -> None:
        super().__init__()
        time, height, width = (kernel,) * 3 if isinstance(kernel, int) else kernel
        padding = (0, height // 2, width // 2)
        self.conv = nn.Conv3d(in_channels, out_channels, (time, height, width), padding=padding)
        self.num_before = time - 1

    def forward(self, x: Tensor) -> Tensor:
        """Same size as the input."""
        return self.conv(repeat_first(x, self.num_before))


class FrameConv2d(nn.Conv2d):
    """A 3 x 3 convolution of every frame."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  nn.Conv2d's name
        """Same size as the input."""
        return each_frame(super().forward, input)


class ResnetBlock3D(nn.Module):
    """Two normalised causal convolutions and a shortcut."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = self.conv(in_channels, out_channels, 3)
        self.norm2 = group_norm(out_channels)
        self.conv2 = self.conv(out_channels, out_channels, 3)
        self.nin_shortcut = (
            nn.Identity() if in_channels == out_channels else self.conv(in_channels, out_channels, 1)
        )

    def conv(self, in_channels: int, out_channels: int, kernel: int) -> nn.Module:
        """A convolution that keeps the size."""
        return CausalConv3d(in_channels, out_channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Same size as the input."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return self.nin_shortcut(x) + hidden


class ResnetBlock2D(ResnetBlock3D):
    """The same for every frame by itself, statistics of the norms included."""

    def conv(self, in_channels: int, out_channels: int, kernel: int) -> nn.Module:
        """A convolution that keeps the size."""
        return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Same size as the input."""
        return each_frame(super().forward, x)


class FrameAttention(nn.Module):
    """Self-attention within every frame, one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q = CausalConv3d(channels, channels, 1)
        self.k = CausalConv3d(channels, channels, 1)
        self.v = CausalConv3d(channels, channels, 1)
        self.proj_out = CausalConv3d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Same size as the input."""
        hidden = self.norm(x)
        # (B, C, T, H, W) -> (B, T, H * W, C)
        rows = [layer(hidden).permute(0, 2, 3, 4, 1).flatten(2, 3) for layer in (self.q, self.k, self.v)]
        attended = F.scaled_dot_product_attention(*rows)
        attended = attended.unflatten(2, x.shape[3:]).permute(0, 4, 1, 2, 3)
        return x + self.proj_out(attended)


class Downsample(Downsample2D):
    """Half the height and width of every frame."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, use_conv=True, padding=0, name="op")

    def forward(self, hidden_states: Tensor) -> Tensor:  # type: ignore[override]
        """(B, C, T, H / 2, W / 2)."""
        return each_frame(super().forward, hidden_states)


class SpatialUpsample2x(nn.Module):
    """Twice the height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, (1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, 2 H, 2 W)."""
        return self.conv(F.interpolate(x, scale_factor=(1, 2, 2), mode="nearest"))


class TimeDownsampleRes2x(nn.Module):
    """T frames to (T + 1) / 2: a mean over three frames, mixed with a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, 3, stride=(2, 1, 1), padding=(0, 1, 1))
        self.mix_factor = nn.Parameter(torch.tensor([INITIAL_MIX]))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, (T + 1) // 2, H, W)."""
        padded = repeat_first(x, 2)
        means = F.avg_pool3d(padded, (3, 1, 1), stride=(2, 1, 1))
        return torch.lerp(self.conv(padded), means, self.mix_factor.sigmoid())


class TimeUpsampleRes2x(nn.Module):
    """T frames to 2 T - 1: interpolated but for the first, mixed with a convolution of the result."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = CausalConv3d(channels, channels, 3)
        self.mix_factor = nn.Parameter(torch.tensor([INITIAL_MIX]))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 2 T - 1, H, W)."""
        if x.shape[2] > 1:
            rest = F.interpolate(x[:, :, 1:], scale_factor=(2, 1, 1), mode="trilinear")
            x = torch.cat([x[:, :, :1], rest], dim=2)
        return torch.lerp(self.conv(x), x, self.mix_factor.sigmoid())


def group_norm(channels: int) -> nn.GroupNorm:
    """The norm of all layers."""
    return nn.GroupNorm(NORM_GROUPS, channels, eps=NORM_EPS)


def repeat_first(x: Tensor, times: int) -> Tensor:
    """Put the first frame so many times before the video: (B, C, times + T, H, W)."""
    return torch.cat([x[:, :, :1].expand(-1, -1, times, -1, -1), x], dim=2) if times else x


def each_frame(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function of images (B * T, C, H, W) to the frames of a video."""
    images = function(x.transpose(1, 2).flatten(0, 1))
    return images.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
