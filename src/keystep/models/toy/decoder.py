"""The learned decoder: turns each frame of scene maps into pixels.

Shape suffixes: B clips, F frames, C latent channels, Y/X grid, H/W pixels, D hidden width.
"""

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class _Block(nn.Module):
    """Residual block: a depthwise 3 x 3 mix, then an MLP in every cell (after ConvNeXt, arXiv:2201.03545)."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, expansion * width)
        self.act = nn.GELU(approximate="tanh")
        self.down = nn.Linear(expansion * width, width)
        nn.init.zeros_(self.down.weight)  # start as the identity

    def forward(self, x_NDYX: Tensor) -> Tensor:
        y_NYXD = self.mix(x_NDYX).permute(0, 2, 3, 1)
        y_NYXD = self.down(self.act(self.up(self.norm(y_NYXD))))
        return x_NDYX + y_NYXD.permute(0, 3, 1, 2)


class SceneDecoder(ModelMixin, ConfigMixin):
    """Per-frame decoder from scene maps to RGB, with the `decode` method of a diffusers video autoencoder.

    Args:
        latent_channels: channels of the maps.
        width: hidden channels.
        num_blocks: residual blocks.
        expansion: hidden width of each block's MLP, in units of `width`.
        upscale: pixels per grid cell along each axis.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 9,
        width: int = 96,
        num_blocks: int = 4,
        expansion: int = 3,
        upscale: int = 4,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(latent_channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(width, expansion) for _ in range(num_blocks))
        self.norm_out = nn.LayerNorm(width)
        self.proj_out = nn.Linear(width, 3 * upscale**2)
        self.shuffle = nn.PixelShuffle(upscale)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode single frames.

        Args:
            latents: (frames, C, Y, X).

        Returns:
            Pixels, about -1 to 1, (frames, 3, H, W).
        """
        x_NDYX = self.conv_in(latents)
        for block in self.blocks:
            x_NDYX = block(x_NDYX)
        out_NYXD = self.proj_out(self.norm_out(x_NDYX.permute(0, 2, 3, 1)))
        return self.shuffle(out_NYXD.permute(0, 3, 1, 2))

    def decode(self, latents: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Decode clips.

        Args:
            latents: (B, C, F, Y, X).
            return_dict: False gives a plain tuple.

        Returns:
            ``.sample``: pixels, about -1 to 1, (B, 3, F, H, W).
        """
        frames = latents.transpose(1, 2).flatten(0, 1)
        pixels = self(frames).unflatten(0, (latents.shape[0], latents.shape[2])).transpose(1, 2)
        return DecoderOutput(sample=pixels) if return_dict else (pixels,)
