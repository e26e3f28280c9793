"""What STDiT3 makes of its inputs: latents, positions, numbers and text as vectors of one width.

Shape suffixes: B rows, T latent frames, H/W latent height and width, S patches of a frame, L text tokens,
C width, K half a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_2d_sincos_pos_embed, get_timestep_embedding
from torch import Tensor, nn

ROTARY_BASE = 10_000.0
SINUSOID_WIDTH = 256  # of a number, before its MLP


class PatchEmbed(nn.Module):
    """Cuts every latent frame into patches, one token each; odd sizes are padded with zeros.

    Args:
        in_channels: channels of the latents.
        width: of a token.
        patch_size: (frames, rows, columns) of a patch.
    """

    def __init__(self, in_channels: int, width: int, patch_size: tuple[int, int, int]) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv3d(in_channels, width, kernel_size=patch_size, stride=patch_size)

    def count(self, latents: Tensor) -> tuple[int, int, int]:
        """Patches along the frames, rows and columns of latents (B, channels, T, H, W)."""
        _, frames, rows, columns = (
            -(-size // patch) for size, patch in zip(latents.shape[1:], (1, *self.patch_size), strict=True)
        )
        return frames, rows, columns

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (B, channels, T, H, W) to tokens (B, T * S, C), frame by frame, row by row."""
        missing = [-size % patch for size, patch in zip(latents.shape[2:], self.patch_size, strict=True)]
        padding = [amount for size in reversed(missing) for amount in (0, size)]
        return self.proj(F.pad(latents, padding)).flatten(2).transpose(1, 2)


class PositionEmbed(nn.Module):
    """Tells the places of a frame apart; a module, so that its output can be dealt out to several ranks."""

    def forward(self, x_BNC: Tensor, positions_SC: Tensor) -> Tensor:
        """Tokens (B, T * S, C) plus the positions of every frame's patches."""
        return x_BNC + positions_SC.repeat(x_BNC.shape[1] // len(positions_SC), 1)


class NumberEmbed(nn.Module):
    """Embeds one number a row: sinusoids, then an MLP.

    Args:
        width: of the result.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(SINUSOID_WIDTH, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, numbers: Tensor, dtype: torch.dtype) -> Tensor:
        """Numbers (B,), whose sinusoids are made in float32, to vectors (B, C) in `dtype`."""
        waves = get_timestep_embedding(numbers, SINUSOID_WIDTH, flip_sin_to_cos=True, downscale_freq_shift=0)
        return self.mlp(waves.to(dtype))


class Mlp(nn.Module):
    """Two layers around a tanh GELU.

    Args:
        in_width: of the input.
        hidden_width: between the layers.
        out_width: of the output.
    """

    def __init__(self, in_width: int, hidden_width: int, out_width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_width, hidden_width)
        self.fc2 = nn.Linear(hidden_width, out_width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_width) to (..., out_width)."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class TextEmbed(nn.Module):
    """Projects the text encoder's tokens; `y_embedding` is the learned text of the unconditional branch.

    Args:
        in_width: of the text encoder's tokens.
        width: of the result.
        max_tokens: in a text.
    """

    y_embedding: Tensor  # (max_tokens, in_width), not projected

    def __init__(self, in_width: int, width: int, max_tokens: int) -> None:
        super().__init__()
        self.y_proj = Mlp(in_width, width, width)
        self.register_buffer("y_embedding", torch.randn(max_tokens, in_width) / in_width**0.5)

    def forward(self, text: Tensor) -> Tensor:
        """Tokens (B, L, in_width) to (B, L, C)."""
        return self.y_proj(text)


class RotaryFrequencies(nn.Module):
    """Rotary positions of latent frames (RoFormer, arXiv:2104.09864), for neighbouring pairs of channels.

    Args:
        head_width: of an attention head.
    """

    def __init__(self, head_width: int) -> None:
        super().__init__()
        exponents_K = torch.arange(0, head_width, 2).float() / head_width
        self.freqs = nn.Parameter(ROTARY_BASE**-exponents_K, requires_grad=False)

    def forward(self, num_frames: int) -> tuple[Tensor, Tensor]:
        """(cos, sin), each (T, head width) in float32, every value twice in a row."""
        positions_T = torch.arange(num_frames, device=self.freqs.device).float()
        angles = torch.outer(positions_T, self.freqs.float()).repeat_interleave(2, dim=1)
        return angles.cos(), angles.sin()


def patch_positions(width: int, rows: int, columns: int, scale: Tensor) -> Tensor:
    """Sinusoidal positions of one frame's patches (S, C); the first half of C encodes the column.

    Positions are stretched to a square of as many patches, then divided by `scale`.

    Args:
        width: C.
        rows, columns: of patches.
        scale: size of the video in pixels over the size the model was trained at; one value.
    """
    # a tensor where a float is declared: reading it from the device would wait for everything before it
    return get_2d_sincos_pos_embed(
        width,
        (rows, columns),
        interpolation_scale=scale,  # pyright: ignore[reportArgumentType]
        base_size=round((rows * columns) ** 0.5),
        device=scale.device,
    )
