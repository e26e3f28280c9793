"""The causal video autoencoder of Open-Sora-Plan 1.1: 4 x fewer frames, 8 x fewer rows and columns.

Source: PKU-YuanGroup/Open-Sora-Plan v1.1.0, `opensora/models/ae/videobase/causal_vae/modeling_causalvae.py`.
All tensors are (B, C, T, H, W): samples, channels, frames, rows, columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import AutoencoderMixin, DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook

from keystep.errors import require
from keystep.models.config import arguments_for
from keystep.models.opensora_plan import vae_stack as stack
from keystep.models.opensora_plan.sizes import check_video
from keystep.models.opensora_plan.tiling import Tiling
from keystep.models.opensora_plan.vae_layers import CausalConv3d

# Released weights hold the discriminator and the perceptual loss of the training, too.
UNUSED_PREFIX = "loss."
# Variants that the reference code has and the released autoencoder is not.
_FIXED = {
    "attn_resolutions": [],
    "decoder_attention": "AttnBlock3DFix",
    "decoder_conv_in": "CausalConv3d",
    "decoder_conv_out": "CausalConv3d",
    "decoder_mid_resnet": "ResnetBlock3D",
    "double_z": True,
    "encoder_attention": "AttnBlock3DFix",
    "encoder_conv_in": "Conv2d",
    "encoder_conv_out": "CausalConv3d",
    "encoder_mid_resnet": "ResnetBlock3D",
    "q_conv": "CausalConv3d",
}
_IRRELEVANT = frozenset({"dropout", "loss_params", "loss_type", "lr", "resolution"})  # training


class CausalVideoVAE(ModelMixin, AutoencoderMixin, ConfigMixin):
    """Videos in [-1, 1] to latents and back. Defaults are the released model's.

    A video of 4 n + 1 frames is n + 1 latent frames. Tiling is on, as in the authors' sampling scripts:
    videos of more than 256 x 256 or 65 frames go through in overlapping tiles, which changes them a little.

    Args:
        hidden_size: width of the first level; a multiple of 32, as all widths.
        hidden_size_mult: width of every level, in hidden sizes; finest first.
        z_channels: latent channels inside.
        embed_dim: latent channels.
        num_res_blocks: of an encoder level; a decoder level has one more.
        encoder_resnet_blocks: kind of every level, "ResnetBlock2D" or "ResnetBlock3D".
        encoder_spatial_downsample: of every level, "Downsample" or "".
        encoder_temporal_downsample: of every level, "TimeDownsampleRes2x" or "".
        decoder_resnet_blocks: as for the encoder, finest first, too.
        decoder_spatial_upsample: of every level, "SpatialUpsample2x" or "".
        decoder_temporal_upsample: of every level, "TimeUpsampleRes2x" or "".
        scaling_factor: latents times this have about unit variance; the pipeline applies it.

    Raises:
        ValueError: lists of different lengths, or an unknown layer.
    """

    @register_to_config
    def __init__(
        self,
        hidden_size: int = 128,
        hidden_size_mult: Sequence[int] = (1, 2, 4, 4),
        z_channels: int = 4,
        embed_dim: int = 4,
        num_res_blocks: int = 2,
        encoder_resnet_blocks: Sequence[str] = (*["ResnetBlock2D"] * 2, *["ResnetBlock3D"] * 2),
        encoder_spatial_downsample: Sequence[str] = (*["Downsample"] * 3, ""),
        encoder_temporal_downsample: Sequence[str] = ("", *["TimeDownsampleRes2x"] * 2, ""),
        decoder_resnet_blocks: Sequence[str] = ("ResnetBlock3D",) * 4,
        decoder_spatial_upsample: Sequence[str] = ("", *["SpatialUpsample2x"] * 3),
        decoder_temporal_upsample: Sequence[str] = ("", "", *["TimeUpsampleRes2x"] * 2),
        scaling_factor: float = 0.18215,
    ) -> None:
        super().__init__()
        widths = [hidden_size * multiple for multiple in hidden_size_mult]
        down = stack.levels_of(
            widths,
            encoder_resnet_blocks,
            ("encoder_spatial_downsample", encoder_spatial_downsample, stack.SPATIAL_DOWN),
            ("encoder_temporal_downsample", encoder_temporal_downsample, stack.TEMPORAL_DOWN),
        )
        up = stack.levels_of(
            widths,
            decoder_resnet_blocks,
            ("decoder_spatial_upsample", decoder_spatial_upsample, stack.SPATIAL_UP),
            ("decoder_temporal_upsample", decoder_temporal_upsample, stack.TEMPORAL_UP),
        )
        self.encoder = stack.Encoder(down, hidden_size, 2 * z_channels, num_res_blocks)
        self.decoder = stack.Decoder(up, z_channels, num_res_blocks + 1)
        self.quant_conv = CausalConv3d(2 * z_channels, 2 * embed_dim, 1)
        self.post_quant_conv = CausalConv3d(embed_dim, z_channels, 1)
        self.use_slicing = False
        self.use_tiling = True
        # The reference's names and values; set them for smaller tiles.
        self.tile_sample_min_size = 256
        self.tile_latent_min_size = 32
        self.tile_sample_min_size_t = 65
        self.tile_latent_min_size_t = 17
        self.tile_overlap_factor = 0.25

    @apply_forward_hook
    def encode(
        self, x: torch.Tensor, return_dict: bool = True
    ) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """The distribution of a video's latents.

        Args:
            x: (B, 3, 4 n + 1, 8 h, 8 w), values -1 to 1.
            return_dict: False gives a plain tuple.

        Returns:
            Over latents (B, embed_dim, n + 1, h, w), unscaled.

        Raises:
            ValueError: a size that the latents cannot express; names the nearest.
        """
        check_video(x.shape)
        tiling = Tiling(
            self.tile_sample_min_size,
            self.tile_latent_min_size,
            self.tile_sample_min_size_t,
            self.tile_overlap_factor,
        )
        posterior = DiagonalGaussianDistribution(self._run(self._encode, x, tiling))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    @apply_forward_hook
    def decode(self, z: torch.Tensor, return_dict: bool = True) -> DecoderOutput | tuple[torch.Tensor]:
        """The video of latents.

        Args:
            z: (B, embed_dim, n + 1, h, w), unscaled.
            return_dict: False gives a plain tuple.

        Returns:
            (B, 3, 4 n + 1, 8 h, 8 w), values about -1 to 1.

        Raises:
            ValueError: another number of dimensions or channels.
        """
        channels = self.config["embed_dim"]
        is_valid = z.ndim == 5 and z.shape[1] == channels
        require(is_valid, "latents", tuple(z.shape), f"(B, {channels}, T, H, W)")
        tiling = Tiling(
            self.tile_latent_min_size,
            self.tile_sample_min_size,
            self.tile_latent_min_size_t,
            self.tile_overlap_factor,
        )
        video = self._run(self._decode, z, tiling)
        return DecoderOutput(sample=video) if return_dict else (video,)

    def _run(
        self, function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, tiling: Tiling
    ) -> torch.Tensor:
        samples = x.split(1) if self.use_slicing else [x]
        is_tiled = self.use_tiling and tiling.is_needed(x)
        return torch.cat([tiling.apply(function, s) if is_tiled else function(s) for s in samples])

    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.quant_conv(self.encoder(x))

    def _decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.post_quant_conv(z))


def vae_arguments(released: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `CausalVideoVAE` from the released config.

    Raises:
        ValueError: a variant keystep does not have (1.0's autoencoder is one), or an unknown field.
    """
    return arguments_for(CausalVideoVAE.__init__, released, _FIXED, _IRRELEVANT)
