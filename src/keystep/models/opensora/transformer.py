"""STDiT3, the transformer of Open-Sora 1.2, as a diffusers model with the released checkpoint's key names.

After Open-Sora v1.2.0, `opensora/models/stdit/stdit3.py`. Pairs of blocks: one attends within every latent
frame, one along time at every place.

Shape suffixes: B rows (guidance branches x samples), T latent frames, S patches of a frame, N = T * S tokens,
L text tokens, C width, M = 1, or T where frames differ in their modulation.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from keystep.errors import require
from keystep.models.opensora.attention import NORM_EPS, CrossAttention, SelfAttention
from keystep.models.opensora.embeddings import (
    Mlp,
    NumberEmbed,
    PatchEmbed,
    PositionEmbed,
    RotaryFrequencies,
    TextEmbed,
    patch_positions,
)

Rotary = tuple[Tensor, Tensor]


class STDiT3Block(nn.Module):
    """Attention in space or along time, attention to the text, an MLP; all as residuals.

    Args:
        width: C.
        num_heads: of both attentions.
        mlp_ratio: hidden width of the MLP over C.
        is_temporal: attend along time rather than within a frame.
    """

    def __init__(self, width: int, num_heads: int, mlp_ratio: float, is_temporal: bool) -> None:
        super().__init__()
        self.is_temporal = is_temporal
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.attn = SelfAttention(width, num_heads)
        self.cross_attn = CrossAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.mlp = Mlp(width, int(width * mlp_ratio), width)
        self.scale_shift_table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def forward(
        self,
        hidden_states: Tensor,
        text: Tensor,
        modulation: Tensor,
        num_frames: int,
        text_mask: Tensor | None = None,
        rotary: Rotary | None = None,
    ) -> Tensor:
        """Run the block.

        Args:
            hidden_states: (B, N, C), frame by frame.
            text: (B, L, C).
            modulation: (B, M, 6, C): shift, scale, gate of the attention, then of the MLP.
            num_frames: T.
            text_mask: (B, L), True where a token counts; None = everywhere.
            rotary: (cos, sin) of the frames; only for a temporal block.

        Returns:
            (B, N, C).
        """
        table = (self.scale_shift_table + modulation).unsqueeze(3)  # (B, M, 6, 1, C)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = table.unbind(2)
        x_BTSC = hidden_states.unflatten(1, (num_frames, -1))
        attended = self._attend(self.norm1(x_BTSC) * (1 + scale) + shift, rotary)
        x_BNC = (x_BTSC + gate * attended).flatten(1, 2)
        x_BNC = x_BNC + self.cross_attn(x_BNC, text, text_mask)
        x_BTSC = x_BNC.unflatten(1, (num_frames, -1))
        out = self.mlp(self.norm2(x_BTSC) * (1 + mlp_scale) + mlp_shift)
        return (x_BTSC + mlp_gate * out).flatten(1, 2)

    def _attend(self, x_BTSC: Tensor, rotary: Rotary | None) -> Tensor:
        if self.is_temporal:
            rows_BST = x_BTSC.transpose(1, 2).flatten(0, 1)
            return self.attn(rows_BST, rotary).unflatten(0, (x_BTSC.shape[0], -1)).transpose(1, 2)
        return self.attn(x_BTSC.flatten(0, 1)).unflatten(0, x_BTSC.shape[:2])


class FinalLayer(nn.Module):
    """The last modulation and the projection to patches.

    Args:
        width: C.
        patch_width: values of a patch, all channels.
    """

    def __init__(self, width: int, patch_width: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.linear = nn.Linear(width, patch_width)
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)

    def forward(
        self,
        hidden_states: Tensor,
        time: Tensor,
        num_frames: int,
        frame_mask: Tensor | None = None,
        time_zero: Tensor | None = None,
    ) -> Tensor:
        """Project (B, N, C) to (B, N, patch width).

        Args:
            hidden_states: (B, N, C).
            time: embedded timestep, (B, C).
            num_frames: T.
            frame_mask: (B, T), False where a frame is noise-free.
            time_zero: embedded timestep 0, (B, C); goes with `frame_mask`.
        """
        x_BTSC = self._modulate(hidden_states.unflatten(1, (num_frames, -1)), time)
        if frame_mask is not None and time_zero is not None:
            # The reference modulates noise-free frames twice, the second time on top of the first. Sampling
            # never uses the output of these frames.
            x_BTSC = torch.where(frame_mask[:, :, None, None], x_BTSC, self._modulate(x_BTSC, time_zero))
        return self.linear(x_BTSC.flatten(1, 2))

    def _modulate(self, x_BTSC: Tensor, time_BC: Tensor) -> Tensor:
        shift, scale = (self.scale_shift_table + time_BC[:, None])[:, :, None, None].unbind(1)
        return self.norm_final(x_BTSC) * (1 + scale) + shift


class STDiT3(ModelMixin, ConfigMixin, CacheMixin):
    """Predicts the velocity of video latents from a text; the defaults are the released STDiT3-XL/2.

    Args:
        input_sq_size: side in pixels of the square that positions are relative to.
        in_channels: channels of the latents.
        patch_size: (frames, rows, columns) of a patch; frames must be 1.
        hidden_size: width of a token.
        depth: pairs of blocks.
        num_heads: attention heads, a divisor of `hidden_size` that leaves an even head width.
        mlp_ratio: hidden width of the MLPs over `hidden_size`.
        caption_channels: width of the text encoder's tokens.
        model_max_length: tokens of the longest text.

    Raises:
        ValueError: a size that does not fit.
    """

    _no_split_modules = ["STDiT3Block"]
    _repeated_blocks = ["STDiT3Block"]

    @register_to_config
    def __init__(
        self,
        input_sq_size: int = 512,
        in_channels: int = 4,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        hidden_size: int = 1152,
        depth: int = 28,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        caption_channels: int = 4096,
        model_max_length: int = 300,
    ) -> None:
        super().__init__()
        require(len(patch_size) == 3 and patch_size[0] == 1, "patch_size", patch_size, "(1, rows, columns)")
        require(
            hidden_size % (2 * num_heads) == 0, "hidden_size", hidden_size, f"multiples of {2 * num_heads}"
        )
        self.x_embedder = PatchEmbed(in_channels, hidden_size, patch_size)
        self.pos_embedder = PositionEmbed()
        self.t_embedder = NumberEmbed(hidden_size)
        self.fps_embedder = NumberEmbed(hidden_size)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 6 * hidden_size))
        self.y_embedder = TextEmbed(caption_channels, hidden_size, model_max_length)
        self.rope = RotaryFrequencies(hidden_size // num_heads)
        self.spatial_blocks, self.temporal_blocks = (
            nn.ModuleList(STDiT3Block(hidden_size, num_heads, mlp_ratio, is_temporal) for _ in range(depth))
            for is_temporal in (False, True)
        )
        # twice the channels: velocity, and a variance that is learned but not used
        self.final_layer = FinalLayer(hidden_size, 2 * in_channels * patch_size[1] * patch_size[2])

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        fps: Tensor,
        height: Tensor,
        width: Tensor,
        encoder_attention_mask: Tensor | None = None,
        frame_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Predict.

        Arguments other than the latents may have fewer rows than B: they are repeated, so one row is shared.

        Args:
            hidden_states: latents, (B, channels, T, H, W); odd H and W are padded inside.
            timestep: 1000 (noise) to 0 (video), (B,).
            encoder_hidden_states: the text encoder's tokens, (B, L, caption channels).
            fps: frames per second, (B,); 120 for an image.
            height: of the video in pixels, (B,); all rows are of one size, the first counts.
            width: likewise.
            encoder_attention_mask: (B, L), nonzero where a token counts; None = everywhere. Other tokens
                have no influence at all.
            frame_mask: (B, T), False for frames that are given free of noise; they are treated as of
                timestep 0. None = no such frame.
            return_dict: False gives a plain tuple.

        Returns:
            ``.sample``: (B, 2 * channels, T, H, W) in float32; the first half is the velocity.

        Raises:
            ValueError: an argument is of a wrong shape.
        """
        channels = self.config["in_channels"]
        fits = hidden_states.ndim == 5 and hidden_states.shape[1] == channels
        require(fits, "hidden_states", tuple(hidden_states.shape), f"(B, {channels}, T, H, W)")
        num_rows, dtype = len(hidden_states), self.x_embedder.proj.weight.dtype
        num_frames, rows, columns = self.x_embedder.count(hidden_states)
        if frame_mask is not None:
            frame_mask = match_rows("frame_mask", frame_mask, num_rows, num_frames)
        # the reference rounds the timestep to the weights' type
        timestep = match_rows("timestep", timestep, num_rows).to(dtype)
        time, time_zero, modulation = self._embed_time(timestep, match_rows("fps", fps, num_rows), frame_mask)
        text, text_mask = self._embed_text(encoder_hidden_states.to(dtype), encoder_attention_mask, num_rows)
        height, width = match_rows("height", height, num_rows), match_rows("width", width, num_rows)
        scale = (height[:1].float() * width[:1].float()).sqrt() / self.config["input_sq_size"]
        positions_SC = patch_positions(text.shape[-1], rows, columns, scale).to(dtype)
        x_BNC = self.pos_embedder(self.x_embedder(hidden_states.to(dtype)), positions_SC)

        rotary = self.rope(num_frames)
        for spatial, temporal in zip(self.spatial_blocks, self.temporal_blocks, strict=True):
            x_BNC = spatial(x_BNC, text, modulation, num_frames, text_mask)
            x_BNC = temporal(x_BNC, text, modulation, num_frames, text_mask, rotary)

        patches = self.final_layer(x_BNC, time, num_frames, frame_mask, time_zero)
        sample = self._unpatch(patches, (num_frames, rows, columns), hidden_states).float()
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)

    def _embed_time(
        self, timestep_B: Tensor, fps_B: Tensor, frame_mask_BT: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Embedded timestep and timestep 0 (B, C), and the blocks' modulation (B, M, 6, C)."""
        dtype = timestep_B.dtype
        fps_BC = self.fps_embedder(fps_B, dtype)
        time_BC = self.t_embedder(timestep_B, dtype) + fps_BC
        modulation = self.t_block(time_BC)[:, None]
        zero_BC = None
        if frame_mask_BT is not None:
            zero_BC = self.t_embedder(torch.zeros_like(timestep_B), dtype) + fps_BC
            modulation = torch.where(frame_mask_BT[:, :, None], modulation, self.t_block(zero_BC)[:, None])
        return time_BC, zero_BC, modulation.unflatten(-1, (6, -1))

    def _embed_text(self, tokens: Tensor, mask: Tensor | None, num_rows: int) -> tuple[Tensor, Tensor | None]:
        """Text (B, L, C) and its mask (B, L)."""
        tokens = match_rows("encoder_hidden_states", tokens, num_rows, None, self.config["caption_channels"])
        if mask is not None:
            mask = match_rows("encoder_attention_mask", mask, num_rows, tokens.shape[1]).bool()
        return self.y_embedder(tokens), mask

    def _unpatch(self, patches: Tensor, grid: tuple[int, int, int], latents: Tensor) -> Tensor:
        """Tokens (B, N, patch width) to (B, 2 * channels, T, H, W), without the padding."""
        (frames, rows, columns), (_, patch_h, patch_w) = grid, self.x_embedder.patch_size
        x = patches.unflatten(2, (patch_h, patch_w, -1)).unflatten(1, (frames, rows, columns))
        x = x.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
        return x[..., : latents.shape[-2], : latents.shape[-1]]


def match_rows(name: str, value: Tensor, num_rows: int, *shape: int | None) -> Tensor:
    """`value` repeated to as many rows as the latents have.

    Args:
        name: of the argument, for the error.
        value: (rows, *shape); the rows are a divisor of `num_rows`.
        num_rows: of the latents.
        shape: sizes beyond the rows; None = any.

    Raises:
        ValueError: another shape.
    """
    fits = value.ndim == 1 + len(shape) and value.shape[0] > 0 and num_rows % value.shape[0] == 0
    fits = fits and all(want in (None, size) for want, size in zip(shape, value.shape[1:], strict=True))
    wanted = ", ".join(["B", *("any" if want is None else str(want) for want in shape)])
    require(fits, name, tuple(value.shape), f"({wanted}) where B is {num_rows} or a divisor of it")
    times = num_rows // value.shape[0]
    return value if times == 1 else value.repeat(times, *[1] * len(shape))
