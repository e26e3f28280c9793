"""Open-Sora 1.2's video autoencoder: a 2D one for every frame, then a temporal one for chunks of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import AutoencoderMixin, DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor

from keystep.errors import require
from keystep.models.opensora.frame_vae import FrameVAE
from keystep.models.opensora.temporal_vae import TemporalVAE

TILE_OVERLAP = 4  # tiles overlap by one part in this, as diffusers has it


class AutoencoderKLOpenSora(ModelMixin, AutoencoderMixin, ConfigMixin):
    """Open-Sora 1.2's video autoencoder, 4 x 8 x 8 pixels to one latent cell (report 03 of the repository).

    Frames go through a 2D autoencoder, the results through a temporal one in chunks that know nothing of each
    other: 17 frames are 5 latent frames, and what remains at the end of a video is a shorter chunk. Latents
    are normalised per channel, as the diffusion model sees them. Defaults are the released model's (tag
    v1.2.0, `opensora/models/vae/vae.py`).

    Args:
        in_channels, out_channels: of the pixels.
        latent_channels: C.
        block_out_channels, layers_per_block, norm_num_groups: of the 2D one, see diffusers' `AutoencoderKL`.
        scaling_factor: 2D latents are multiplied by this.
        temporal_widths: hidden channels of the temporal autoencoder per level, the finest in time first.
        temporal_layers_per_block: residual blocks per level.
        temporal_downsample: per level but the last, whether it is followed by a halving of the frames.
        temporal_norm_num_groups: of its group normalisations.
        latents_mean, latents_std: what normalises the latents, per channel; buffers that weights replace.
        micro_frame_size: frames per temporal chunk, which the results depend on; None: one chunk.
        micro_batch_size: frames per call of the 2D autoencoder, which only memory depends on; None: all.

    Raises:
        ValueError: widths and halvings, or channels and means, of different number; a micro size under 1.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        latent_channels: int = 4,
        block_out_channels: Sequence[int] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        norm_num_groups: int = 32,
        scaling_factor: float = 0.18215,
        temporal_widths: Sequence[int] = (128, 256, 256, 512),
        temporal_layers_per_block: int = 4,
        temporal_downsample: Sequence[bool] = (False, True, True),
        temporal_norm_num_groups: int = 32,
        latents_mean: Sequence[float] = (-0.10, 0.34, 0.27, 0.98),
        latents_std: Sequence[float] = (3.85, 2.32, 2.33, 3.06),
        micro_frame_size: int | None = 17,
        micro_batch_size: int | None = 4,
    ) -> None:
        super().__init__()
        _check_config(self.config)
        # named as in the released weights
        self.register_buffer("shift", torch.tensor(latents_mean, dtype=torch.float32).view(1, -1, 1, 1, 1))
        self.register_buffer("scale", torch.tensor(latents_std, dtype=torch.float32).view(1, -1, 1, 1, 1))
        self.spatial_vae = FrameVAE(
            block_out_channels,
            micro_batch_size,
            in_channels=in_channels,
            out_channels=out_channels,
            layers_per_block=layers_per_block,
            latent_channels=latent_channels,
            norm_num_groups=norm_num_groups,
            scaling_factor=scaling_factor,
        )
        self.temporal_vae = TemporalVAE(
            latent_channels,
            temporal_widths,
            temporal_layers_per_block,
            temporal_downsample,
            temporal_norm_num_groups,
        )
        self.use_slicing = False
        self.use_tiling = False

    @property
    def patch_size(self) -> tuple[int, int, int]:
        """Frames, rows and columns of pixels per latent cell: (4, 8, 8)."""
        return (self.temporal_vae.factor, self.spatial_vae.factor, self.spatial_vae.factor)

    def get_latent_size(self, size: Sequence[int]) -> tuple[int, int, int]:
        """Latent frames, rows and columns of a video.

        Args:
            size: number of frames, height and width in pixels; rows and columns that fill no cell are lost.

        Raises:
            ValueError: no frame, or a side shorter than a cell.
        """
        num_frames, *sides = size
        cell = self.spatial_vae.factor
        require(num_frames >= 1, "num_frames", num_frames, "at least 1")
        for name, side in zip(("height", "width"), sides, strict=True):
            require(side >= cell, name, side, f"at least {cell}")
        return (self._latent_frames(num_frames), sides[0] // cell, sides[1] // cell)

    def possible_num_frames(self, latent_frames: int) -> range:
        """The lengths of videos whose latents have `latent_frames` frames (of 15: 51 alone; of 2: 5 to 8).

        Raises:
            ValueError: no frame.
        """
        require(latent_frames >= 1, "latent_frames", latent_frames, "at least 1")
        longest = self.temporal_vae.factor * latent_frames
        lengths = [n for n in range(1, longest + 1) if self._latent_frames(n) == latent_frames]
        return range(lengths[0], lengths[-1] + 1)

    def _latent_frames(self, num_frames: int) -> int:
        chunk, factor = self._chunk(num_frames), self.temporal_vae.factor
        full, rest = divmod(num_frames, chunk)
        return full * -(-chunk // factor) + -(-rest // factor)

    def _chunk(self, num_frames: int) -> int:
        """Frames of a full temporal chunk."""
        return self.config["micro_frame_size"] or num_frames

    def enable_tiling(self, tile_size: int = 512) -> None:
        """Let the 2D autoencoder work on overlapping tiles: less memory, and slightly different results.

        Args:
            tile_size: pixels along each side; frames no larger than this stay whole.

        Raises:
            ValueError: tiles whose overlap is no whole number of latent cells.
        """
        step = TILE_OVERLAP * self.spatial_vae.factor
        require(tile_size > 0 and tile_size % step == 0, "tile_size", tile_size, f"a multiple of {step}")
        super().enable_tiling()
        module = self.spatial_vae.module
        module.tile_sample_min_size = tile_size
        module.tile_latent_min_size = tile_size // self.spatial_vae.factor
        module.tile_overlap_factor = 1 / TILE_OVERLAP
        module.enable_tiling()

    def disable_tiling(self) -> None:
        """Work on whole frames."""
        super().disable_tiling()
        self.spatial_vae.module.disable_tiling()

    @apply_forward_hook
    def encode(
        self, video: Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """Encode videos.

        Args:
            video: pixels, -1 to 1, (B, 3, T, H, W).
            return_dict: False gives a plain tuple.
            generator: draws the 2D latents from their posterior, as Open-Sora does; None: takes their mode.

        Returns:
            ``.latent_dist``: of normalised latents (B, C, *get_latent_size((T, H, W))).

        Raises:
            ValueError: a video of another shape, or with a side shorter than a latent cell.
        """
        channels = self.config["in_channels"]
        require(
            video.ndim == 5 and video.shape[1] == channels,
            "video",
            tuple(video.shape),
            f"(batch, {channels}, frames, height, width)",
        )
        self.get_latent_size(video.shape[2:])
        moments = [
            self.encode_frame_latents(self.spatial_vae.encode(sample, generator)).parameters
            for sample in self._slices(video)
        ]
        posterior = DiagonalGaussianDistribution(torch.cat(moments))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def encode_frame_latents(self, frame_latents: Tensor) -> DiagonalGaussianDistribution:
        """The temporal half of `encode`.

        Args:
            frame_latents: scaled 2D latents (B, C, T, h, w).

        Returns:
            Distribution of normalised latents (B, C, T', h, w).
        """
        chunks = frame_latents.split(self._chunk(frame_latents.shape[2]), dim=2)
        moments = torch.cat([self.temporal_vae.encode(chunk) for chunk in chunks], dim=2)
        posterior = DiagonalGaussianDistribution(moments)
        mean = (posterior.mean - self.shift) / self.scale
        return DiagonalGaussianDistribution(torch.cat([mean, posterior.logvar - 2 * self.scale.log()], dim=1))

    @apply_forward_hook
    def decode(
        self, latents: Tensor, num_frames: int, return_dict: bool = True
    ) -> DecoderOutput | tuple[Tensor]:
        """Decode videos.

        Args:
            latents: normalised, (B, C, T', h, w).
            num_frames: of the videos; one of `possible_num_frames(T')`.
            return_dict: False gives a plain tuple.

        Returns:
            ``.sample``: pixels, about -1 to 1, (B, 3, num_frames, 8h, 8w).

        Raises:
            ValueError: latents of another shape, or a length that they cannot be of.
        """
        channels = self.config["latent_channels"]
        require(
            latents.ndim == 5 and latents.shape[1] == channels,
            "latents",
            tuple(latents.shape),
            f"(batch, {channels}, latent frames, rows, columns)",
        )
        possible = self.possible_num_frames(latents.shape[2])
        require(
            num_frames in possible,
            "num_frames",
            num_frames,
            f"{_in_words(possible)} for latents of {latents.shape[2]} frames",
        )
        videos = [
            self.spatial_vae.decode(self.decode_frame_latents(sample, num_frames))
            for sample in self._slices(latents)
        ]
        video = videos[0] if len(videos) == 1 else torch.cat(videos)
        return DecoderOutput(sample=video) if return_dict else (video,)

    def decode_frame_latents(self, latents: Tensor, num_frames: int) -> Tensor:
        """The temporal half of `decode`.

        Args:
            latents: normalised, (B, C, T', h, w).
            num_frames: one of `possible_num_frames(T')`.

        Returns:
            Scaled 2D latents (B, C, num_frames, h, w).
        """
        chunk = self._chunk(num_frames)
        chunks = (latents * self.scale + self.shift).split(self._latent_frames(chunk), dim=2)
        lengths = [min(chunk, num_frames - start) for start in range(0, num_frames, chunk)]
        return torch.cat(
            [self.temporal_vae.decode(z, length) for z, length in zip(chunks, lengths, strict=True)], dim=2
        )

    def _slices(self, batch: Tensor) -> Sequence[Tensor]:
        return batch.split(1) if self.use_slicing else [batch]


def _check_config(config: Mapping[str, Any]) -> None:
    """Raise a ValueError if what must agree does not."""
    expected = {
        "temporal_downsample": (len(config["temporal_widths"]) - 1, "one fewer than temporal_widths"),
        "latents_mean": (config["latent_channels"], "as latent_channels"),
        "latents_std": (config["latent_channels"], "as latent_channels"),
    }
    for name, (number, reason) in expected.items():
        values = config[name]
        require(len(values) == number, name, values, f"{number} values, {reason}")
    for name in ("micro_frame_size", "micro_batch_size"):
        size = config[name]
        require(size is None or size >= 1, name, size, "None or at least 1")


def _in_words(lengths: range) -> str:
    first, last = lengths[0], lengths[-1]
    return f"{first}" if first == last else f"{first} to {last}"
