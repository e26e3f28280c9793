"""Attention of STDiT3: among the tokens of one frame or of one place, and from tokens to text.

Shape suffixes: B rows, N tokens, L text tokens, C width, H heads, D head width.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

NORM_EPS = 1e-6
_rotate: Any = apply_rotary_emb  # annotated more narrowly than it works


class SelfAttentionProcessor:
    """What a `SelfAttention` does with its weights; another one may take its place."""

    def __call__(
        self, attn: SelfAttention, x_BNC: Tensor, rotary: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Attend; arguments and result are those of `SelfAttention.forward`."""
        qkv = attn.qkv(x_BNC).unflatten(-1, (3, attn.num_heads, -1))
        q_BHND, k_BHND, v_BHND = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q_BHND, k_BHND = attn.q_norm(q_BHND), attn.k_norm(k_BHND)
        if rotary is not None:
            q_BHND, k_BHND = _rotate(q_BHND, rotary), _rotate(k_BHND, rotary)
        attended = F.scaled_dot_product_attention(q_BHND, k_BHND, v_BHND)
        return attn.proj(attended.transpose(1, 2).flatten(2))


class SelfAttention(nn.Module):
    """Attention within a sequence, with normalised queries and keys.

    Args:
        width: C.
        num_heads: H, a divisor of C.

    Attributes:
        processor: does the attention, as in diffusers.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.processor = SelfAttentionProcessor()
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.RMSNorm(width // num_heads, eps=NORM_EPS)
        self.k_norm = nn.RMSNorm(width // num_heads, eps=NORM_EPS)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BNC: Tensor, rotary: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Attend; `rotary` is (cos, sin), each (N, D). Returns (B, N, C)."""
        return self.processor(self, x_BNC, rotary)


class CrossAttention(nn.Module):
    """Attention from the video's tokens to the text's.

    Args:
        width: C.
        num_heads: H, a divisor of C.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_linear = nn.Linear(width, width)
        self.kv_linear = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BNC: Tensor, text_BLC: Tensor, text_mask_BL: Tensor | None = None) -> Tensor:
        """Attend to the text tokens where the mask is True; a row without any gets zeros from them.

        Returns:
            (B, N, C).
        """
        q_BHND = self.q_linear(x_BNC).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        kv = self.kv_linear(text_BLC).unflatten(-1, (2, self.num_heads, -1))
        k_BHLD, v_BHLD = kv.permute(2, 0, 3, 1, 4).unbind(0)
        mask = None if text_mask_BL is None else text_mask_BL[:, None, None, :]
        attended = F.scaled_dot_product_attention(q_BHND, k_BHLD, v_BHLD, attn_mask=mask)
        return self.proj(attended.transpose(1, 2).flatten(2))
