"""The Vchitect-2.0 transformer: SD3's blocks with attention in parallel over space, time and text.

"Vchitect-2.0: Parallel Transformer for Scaling Up Video Diffusion Models", arXiv 2501.08453, section 3;
module names are those of the released checkpoint (Vchitect/Vchitect-2.0-2B).

Differs from the reference in: batches of several videos; every frame has its own text tokens from the
beginning, where the reference has one row before block 0 (the same numbers); frames lie behind one another
along the tokens; rotary angles only of the frames at hand; a single frame leaves out attention across frames,
which the reference multiplies by 0.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import FeedForward
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.embeddings import CombinedTimestepTextProjEmbeddings, PatchEmbed
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import AdaLayerNormContinuous, AdaLayerNormZero
from torch import nn

from keystep.errors import require
from keystep.models.vchitect.attention import Rotary, VchitectAttention, rotary_table

NORM_EPS = 1e-6


class VchitectBlock(nn.Module):
    """One block of image and text stream.

    Args:
        dim: D, width of both streams.
        num_heads: of attention.
        is_last: the text stream ends before this block's MLP.
    """

    def __init__(self, dim: int, num_heads: int, is_last: bool) -> None:
        super().__init__()
        self.is_last = is_last
        self.norm1 = AdaLayerNormZero(dim)
        if is_last:
            self.norm1_context = AdaLayerNormContinuous(dim, dim, elementwise_affine=False, eps=NORM_EPS)
        else:
            self.norm1_context = AdaLayerNormZero(dim)
        self.attn = VchitectAttention(dim, num_heads, is_last)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=NORM_EPS)
        self.ff = FeedForward(dim, activation_fn="gelu-approximate")
        if not is_last:
            self.norm2_context = nn.LayerNorm(dim, elementwise_affine=False, eps=NORM_EPS)
            self.ff_context = FeedForward(dim, activation_fn="gelu-approximate")

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        num_frames: int,
        rotary_emb: Rotary,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both streams after the block; the last block hands the text on as it is.

        Args:
            hidden_states: image tokens (B, F * S, D), frame by frame.
            encoder_hidden_states: text tokens (B, F * L, D); each frame has its own.
            temb: timestep and pooled text (B, D).
            num_frames: F.
            rotary_emb: angles of the frames.
        """
        image, *gates = self.norm1(hidden_states, emb=temb)
        if self.is_last:
            (attended,) = self.attn(
                image, self.norm1_context(encoder_hidden_states, temb), num_frames, rotary_emb
            )
            return add_residuals(hidden_states, attended, gates, self.norm2, self.ff), encoder_hidden_states
        words, *word_gates = self.norm1_context(encoder_hidden_states, emb=temb)
        attended, attended_words = self.attn(image, words, num_frames, rotary_emb)
        hidden_states = add_residuals(hidden_states, attended, gates, self.norm2, self.ff)
        encoder_hidden_states = add_residuals(
            encoder_hidden_states, attended_words, word_gates, self.norm2_context, self.ff_context
        )
        return hidden_states, encoder_hidden_states


def add_residuals(
    stream: torch.Tensor, attended: torch.Tensor, gates: list[torch.Tensor], norm: nn.Module, mlp: nn.Module
) -> torch.Tensor:
    """A stream after its gated attention and its modulated, gated MLP.

    Args:
        stream: (rows, tokens, D).
        attended: attention output of the same shape.
        gates: attention gate, MLP shift, MLP scale, MLP gate, each (rows, D), as `AdaLayerNormZero` returns.
        norm: before the MLP.
        mlp: the MLP.
    """
    attention_gate, shift, scale, mlp_gate = (gate[:, None] for gate in gates)
    stream = stream + attention_gate * attended
    return stream + mlp_gate * mlp(norm(stream) * (1 + scale) + shift)


class VchitectTransformer3DModel(ModelMixin, ConfigMixin, CacheMixin):
    """Predicts the flow-matching velocity of a video's latents from a prompt.

    The defaults are SD3-medium's sizes with 2.4 B parameters; a checkpoint brings its own in `config.json`.

    Args:
        sample_size: latent size whose positions are numbered 0 to 1 patch apart.
        patch_size: latent pixels a token is wide and high.
        in_channels: latent channels.
        num_layers: blocks.
        attention_head_dim: width of a head, even.
        num_attention_heads: heads; the model is `num_attention_heads * attention_head_dim` wide.
        joint_attention_dim: width of the prompt's embeddings.
        caption_projection_dim: what they are projected to: the model's width.
        pooled_projection_dim: width of the pooled embeddings.
        out_channels: of the prediction.
        pos_embed_max_size: rows and columns of tokens that have positions: the largest frame, in patches.
        rope_scaling_factor: frame numbers are divided by this before they become angles.

    Raises:
        ValueError: the projection does not have the model's width.
    """

    _supports_gradient_checkpointing = False
    _no_split_modules = ["VchitectBlock"]
    _repeated_blocks = ["VchitectBlock"]
    _skip_layerwise_casting_patterns = ["pos_embed", "norm"]

    @register_to_config
    def __init__(
        self,
        sample_size: int = 128,
        patch_size: int = 2,
        in_channels: int = 16,
        num_layers: int = 24,
        attention_head_dim: int = 64,
        num_attention_heads: int = 24,
        joint_attention_dim: int = 4096,
        caption_projection_dim: int = 1536,
        pooled_projection_dim: int = 2048,
        out_channels: int = 16,
        pos_embed_max_size: int = 192,
        rope_scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        dim = num_attention_heads * attention_head_dim
        require(
            caption_projection_dim == dim,
            "caption_projection_dim",
            caption_projection_dim,
            f"num_attention_heads * attention_head_dim = {dim}",
        )
        self.pos_embed = PatchEmbed(
            height=sample_size,
            width=sample_size,
            patch_size=patch_size,
            in_channels=in_channels,
            embed_dim=dim,
            pos_embed_max_size=pos_embed_max_size,  # pyright: ignore[reportArgumentType]
        )
        self.time_text_embed = CombinedTimestepTextProjEmbeddings(dim, pooled_projection_dim)
        self.context_embedder = nn.Linear(joint_attention_dim, caption_projection_dim)
        self.transformer_blocks = nn.ModuleList(
            VchitectBlock(dim, num_attention_heads, is_last=index == num_layers - 1)
            for index in range(num_layers)
        )
        self.norm_out = AdaLayerNormContinuous(dim, dim, elementwise_affine=False, eps=NORM_EPS)
        self.proj_out = nn.Linear(dim, patch_size**2 * out_channels)

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        pooled_projections: torch.Tensor,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[torch.Tensor]:
        """Predict the velocity. Tensors other than the latents may have one row for all samples.

        Args:
            hidden_states: latents (B, F, C, Y, X).
            timestep: noise levels (B,), 1000 = pure noise.
            encoder_hidden_states: prompt embeddings (B, L, `joint_attention_dim`).
            pooled_projections: pooled prompt embeddings (B, `pooled_projection_dim`).
            return_dict: False gives a plain tuple.

        Returns:
            The velocity, `sample` (B, F, `out_channels`, Y, X).

        Raises:
            ValueError: the latents do not divide into patches, or are larger than positions are known for.
        """
        self._check_latents(hidden_states)
        batch, num_frames, _, height, width = hidden_states.shape
        temb = self.time_text_embed(timestep.expand(batch), pooled_projections.expand(batch, -1))
        words = self.context_embedder(encoder_hidden_states).expand(batch, -1, -1).repeat(1, num_frames, 1)
        rotary_emb = rotary_table(
            num_frames,
            self.config["attention_head_dim"],
            self.config["rope_scaling_factor"],
            hidden_states.device,
        )
        image = self.pos_embed(hidden_states.flatten(0, 1)).unflatten(0, (batch, num_frames)).flatten(1, 2)
        for block in self.transformer_blocks:
            image, words = block(image, words, temb, num_frames, rotary_emb)
        patches = self.proj_out(self.norm_out(image, temb))
        sample = self._unpatchify(patches.unflatten(1, (num_frames, -1)).flatten(0, 1), height, width)
        sample = sample.unflatten(0, (batch, num_frames))
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)

    def _check_latents(self, latents: torch.Tensor) -> None:
        patch, channels = self.config["patch_size"], self.config["in_channels"]
        largest = patch * self.config["pos_embed_max_size"]
        require(
            latents.ndim == 5
            and latents.shape[2] == channels
            and all(size % patch == 0 and 0 < size <= largest for size in latents.shape[3:]),
            "hidden_states",
            tuple(latents.shape),
            f"(samples, frames, {channels}, height, width) with height and width multiples of {patch} up to "
            f"{largest}",
        )

    def _unpatchify(self, patches: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """(rows, tokens, patch * patch * C) to (rows, C, Y, X)."""
        patch = self.config["patch_size"]
        grid = patches.unflatten(2, (patch, patch, -1)).unflatten(1, (height // patch, width // patch))
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, height, width)
