"""Parallel attention of Vchitect-2.0: within frames, across frames, and to the text of the first frame.

Shape suffixes: B samples, F frames, S image tokens of a frame, L text tokens, N = S + L, D width, H heads,
E width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import nn
from torch.nn import functional as F

SPATIAL_WEIGHT = 1.1  # of attention within frames, beside attention to the text with weight 1
ROTARY_THETA = 1e6

Rotary = tuple[torch.Tensor, torch.Tensor]
Text = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # query, key and value, (B, F, L, D) each


def rotary_table(num_frames: int, head_dim: int, scaling: float, device: torch.device) -> Rotary:
    """Cosines and sines for frames 0, 1, ..., each (F, E) in float32; pairs of channels share an angle.

    Args:
        num_frames: F.
        head_dim: E, even.
        scaling: frame numbers are divided by this.
        device: where the table goes.
    """
    exponents = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim
    positions = torch.arange(num_frames, device=device, dtype=torch.float32) / scaling
    angles = torch.outer(positions, 1.0 / ROTARY_THETA**exponents).repeat_interleave(2, dim=1)
    return angles.cos(), angles.sin()


class Heads(nn.Module):
    """Multi-head attention without projections; a module, so that it can be exchanged by itself.

    Args:
        num_heads: H.
    """

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rotary_emb: Rotary | None = None
    ) -> torch.Tensor:
        """Attend; query, key, value and the result are (rows, tokens, D)."""
        heads: list[Any] = [x.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for x in (query, key, value)]
        if rotary_emb is not None:
            angles: Any = rotary_emb  # diffusers annotates less than it takes
            heads[:2] = [apply_rotary_emb(x, angles) for x in heads[:2]]
        return F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)


class VchitectAttention(nn.Module):
    """Three attentions over the same image and text tokens, added up (arXiv 2501.08453, section 3).

    Args:
        dim: D, of both streams.
        num_heads: H; D = H * E.
        is_last: in the last block, whose text nobody needs any more.
    """

    def __init__(self, dim: int, num_heads: int, is_last: bool) -> None:
        super().__init__()
        self.is_last = is_last
        self.within_frames, self.to_text, self.across_frames = (Heads(num_heads) for _ in range(3))
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        self.to_q_cross = nn.Linear(dim, dim)
        self.to_q_temp = nn.Linear(dim, dim)
        self.to_k_temp = nn.Linear(dim, dim)
        self.to_v_temp = nn.Linear(dim, dim)
        self.add_k_proj = nn.Linear(dim, dim)
        self.add_v_proj = nn.Linear(dim, dim)
        self.add_q_proj = nn.Linear(dim, dim)
        self.to_out = nn.Sequential(nn.Linear(dim, dim))
        self.to_out_temporal = nn.Linear(dim, dim)
        if not is_last:
            self.to_add_out = nn.Linear(dim, dim)
        self.to_add_out_temporal = nn.Linear(dim, dim)  # released for the last block too, and idle there
        self.to_out_context = nn.Linear(dim, dim)

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        num_frames: int,
        rotary_emb: Rotary,
    ) -> tuple[torch.Tensor, ...]:
        """Attend.

        Args:
            hidden_states: normed image tokens (B, F * S, D), frame by frame.
            encoder_hidden_states: normed text tokens (B, F * L, D); each frame has its own.
            num_frames: F; a single frame has no attention across frames.
            rotary_emb: `rotary_table` of the frames.

        Returns:
            What to add to the image tokens, and, but in the last block, what to add to the text tokens; both
            before their gates.
        """
        image_BFSD = hidden_states.unflatten(1, (num_frames, -1))
        text_BFLD = encoder_hidden_states.unflatten(1, (num_frames, -1))
        text = self.add_q_proj(text_BFLD), self.add_k_proj(text_BFLD), self.add_v_proj(text_BFLD)
        joint = SPATIAL_WEIGHT * self._within_frames(image_BFSD, text) + self._to_text(image_BFSD, text)
        num_tokens = image_BFSD.shape[2]
        image = self.to_out(joint[:, :, :num_tokens])
        words = None if self.is_last else self.to_add_out(joint[:, :, num_tokens:])
        if num_frames > 1:
            temporal = self._across_frames(image_BFSD, text, rotary_emb)
            image = image + self.to_out_temporal(temporal[:, :, :num_tokens])
            if words is not None:
                words = words + self.to_add_out_temporal(temporal[:, :, num_tokens:])
        return tuple(stream.flatten(1, 2) for stream in (image, words) if stream is not None)

    def _within_frames(self, image_BFSD: torch.Tensor, text: Text) -> torch.Tensor:
        """Image and text tokens of each frame among themselves, (B, F, N, D)."""
        image = self.to_q(image_BFSD), self.to_k(image_BFSD), self.to_v(image_BFSD)
        query, key, value = (torch.cat(pair, dim=2).flatten(0, 1) for pair in zip(image, text, strict=True))
        return self.within_frames(query, key, value).unflatten(0, image_BFSD.shape[:2])

    def _to_text(self, image_BFSD: torch.Tensor, text: Text) -> torch.Tensor:
        """All tokens of a video look at the text tokens of its first frame, (B, F, N, D)."""
        query = torch.cat([self.to_q_cross(image_BFSD), text[0]], dim=2)
        attended = self.to_text(query.flatten(1, 2), text[1][:, 0], text[2][:, 0])
        return self.to_out_context(attended.unflatten(1, query.shape[1:3]))

    def _across_frames(self, image_BFSD: torch.Tensor, text: Text, rotary_emb: Rotary) -> torch.Tensor:
        """Each token position, of image and of text, looks at itself through time, (B, F, N, D)."""
        image = self.to_q_temp(image_BFSD), self.to_k_temp(image_BFSD), self.to_v_temp(image_BFSD)
        joint = [torch.cat(pair, dim=2).transpose(1, 2) for pair in zip(image, text, strict=True)]
        query, key, value = (tokens.flatten(0, 1) for tokens in joint)
        attended = self.across_frames(query, key, value, rotary_emb)
        return attended.unflatten(0, joint[0].shape[:2]).transpose(1, 2)
