"""Open-Sora 1.2's temporal autoencoder: four frames of 2D latents become one.

A causal 3D autoencoder in the way of MAGVIT-2 (arXiv 2310.05737) that shrinks time alone. Behaves as in
Open-Sora v1.2.0, `opensora/models/vae/vae_temporal.py`; attributes have the names of the released weights.
All tensors are (B, C, T, H, W): samples, channels, frames, rows, columns.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class CausalConv3d(nn.Module):
    """3D convolution that sees no later frame: zeros stand before the first frame, and around each.

    Args:
        in_channels, out_channels: of the convolution.
        kernel_size: odd, the same along all axes.
        stride: along time; 2 halves the number of frames (which must be even).
        bias: whether there is one.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self.front = kernel_size - stride
        around = kernel_size // 2
        self.conv = nn.Conv3d(
            in_channels, out_channels, kernel_size, (stride, 1, 1), padding=(0, around, around), bias=bias
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """(B, in_channels, T, H, W) to (B, out_channels, T / stride, H, W)."""
        if self.front:
            x_BCTHW = F.pad(x_BCTHW, (0, 0, 0, 0, self.front, 0))
        return self.conv(x_BCTHW)


class DoubleFrames(CausalConv3d):
    """Twice the frames: a convolution to twice the channels; neighbouring ones become neighbouring frames."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 2 * channels, kernel_size=3)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C, 2T, H, W)."""
        pairs = super().forward(x_BCTHW).unflatten(1, (-1, 2))
        return pairs.permute(0, 1, 3, 2, 4, 5).flatten(2, 3)


class ResBlock(nn.Module):
    """Two normalised convolutions beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, norm_num_groups: int) -> None:
        super().__init__()
        self.act = nn.SiLU()
        self.norm1 = nn.GroupNorm(norm_num_groups, in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels, 3, bias=False)
        self.norm2 = nn.GroupNorm(norm_num_groups, out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels, 3, bias=False)
        self.conv3 = nn.Identity()
        if in_channels != out_channels:
            self.conv3 = CausalConv3d(in_channels, out_channels, 1, bias=False)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """(B, in_channels, T, H, W) to (B, out_channels, T, H, W)."""
        residual = self.conv1(self.act(self.norm1(x_BCTHW)))
        residual = self.conv2(self.act(self.norm2(residual)))
        return self.conv3(x_BCTHW) + residual


def _res_blocks(in_channels: int, out_channels: int, num_layers: int, norm_num_groups: int) -> nn.Sequential:
    sources = [in_channels] + [out_channels] * (num_layers - 1)
    return nn.Sequential(*(ResBlock(source, out_channels, norm_num_groups) for source in sources))


class TemporalEncoder(nn.Module):
    """Frame latents to moments; the arguments are those of `TemporalVAE`."""

    def __init__(
        self,
        latent_channels: int,
        widths: Sequence[int],
        num_layers: int,
        downsample: Sequence[bool],
        norm_num_groups: int,
    ) -> None:
        super().__init__()
        self.conv_in = CausalConv3d(latent_channels, widths[0], 3, bias=False)
        self.block_res_blocks = nn.ModuleList(
            _res_blocks(source, width, num_layers, norm_num_groups)
            for source, width in zip([widths[0], *widths], widths, strict=False)
        )
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(width, width, 3, stride=2) if halve else nn.Identity()
            for width, halve in zip(widths, [*downsample, False], strict=True)
        )
        self.res_blocks = _res_blocks(widths[-1], widths[-1], num_layers, norm_num_groups)
        self.norm1 = nn.GroupNorm(norm_num_groups, widths[-1])
        self.act = nn.SiLU()
        self.conv2 = CausalConv3d(widths[-1], 2 * latent_channels, 1)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, 2C, T / factor, H, W); T is a multiple of the factor."""
        x_BCTHW = self.conv_in(x_BCTHW)
        for res_blocks, halve in zip(self.block_res_blocks, self.conv_blocks, strict=True):
            x_BCTHW = halve(res_blocks(x_BCTHW))
        return self.conv2(self.act(self.norm1(self.res_blocks(x_BCTHW))))


class TemporalDecoder(nn.Module):
    """Latents to frame latents; the arguments are those of `TemporalVAE`."""

    def __init__(
        self,
        latent_channels: int,
        widths: Sequence[int],
        num_layers: int,
        downsample: Sequence[bool],
        norm_num_groups: int,
    ) -> None:
        super().__init__()
        self.conv1 = CausalConv3d(latent_channels, widths[-1], 3)
        self.res_blocks = _res_blocks(widths[-1], widths[-1], num_layers, norm_num_groups)
        self.block_res_blocks = nn.ModuleList(
            _res_blocks(source, width, num_layers, norm_num_groups)
            for source, width in zip([*widths[1:], widths[-1]], widths, strict=True)
        )
        # entry i follows level i + 1, counted from the finest
        self.conv_blocks = nn.ModuleList(
            DoubleFrames(width) if double else nn.Identity()
            for width, double in zip(widths[1:], downsample, strict=True)
        )
        self.norm1 = nn.GroupNorm(norm_num_groups, widths[0])
        self.act = nn.SiLU()
        self.conv_out = CausalConv3d(widths[0], latent_channels, 3)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C, factor * T, H, W)."""
        x_BCTHW = self.res_blocks(self.conv1(x_BCTHW))
        for res_blocks, double in zip(
            reversed(self.block_res_blocks[1:]), reversed(self.conv_blocks), strict=True
        ):
            x_BCTHW = double(res_blocks(x_BCTHW))
        return self.conv_out(self.act(self.norm1(self.block_res_blocks[0](x_BCTHW))))


class TemporalVAE(nn.Module):
    """Encoder and decoder with the number of frames made to fit.

    Args:
        latent_channels: C, of the frame latents and of the latents.
        widths: hidden channels per level, the finest in time first.
        num_layers: residual blocks per level.
        downsample: per level but the last, whether it is followed by a halving of the frames.
        norm_num_groups: of every group normalisation.

    Attributes:
        factor: frames per latent frame.
    """

    def __init__(
        self,
        latent_channels: int,
        widths: Sequence[int],
        num_layers: int,
        downsample: Sequence[bool],
        norm_num_groups: int,
    ) -> None:
        super().__init__()
        self.factor = 2 ** sum(downsample)
        self.encoder = TemporalEncoder(latent_channels, widths, num_layers, downsample, norm_num_groups)
        self.quant_conv = CausalConv3d(2 * latent_channels, 2 * latent_channels, 1)
        self.post_quant_conv = CausalConv3d(latent_channels, latent_channels, 1)
        self.decoder = TemporalDecoder(latent_channels, widths, num_layers, downsample, norm_num_groups)

    def encode(self, x_BCTHW: Tensor) -> Tensor:
        """Moments (B, 2C, ceil(T / factor), H, W): means, then logarithms of variances.

        Zeros stand before the first frame, up to a multiple of the factor.
        """
        missing = -x_BCTHW.shape[2] % self.factor
        return self.quant_conv(self.encoder(F.pad(x_BCTHW, (0, 0, 0, 0, missing, 0))))

    def decode(self, z_BCTHW: Tensor, num_frames: int) -> Tensor:
        """The last frames, (B, C, num_frames, H, W): without what encoding put before the first."""
        return self.decoder(self.post_quant_conv(z_BCTHW))[:, :, -num_frames % self.factor :]
