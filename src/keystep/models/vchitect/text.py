"""Prompts for Vchitect-2.0, embedded as for Stable Diffusion 3 (arXiv 2403.03206): two CLIP encoders and T5.

Shape suffixes: B prompts, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from keystep.errors import require
from keystep.models.inputs import check_embeds, checked_prompts

CLIP_TOKENS = 77
T5_TOKENS = 256


@dataclass(frozen=True)
class Embedding:
    """What the transformer gets of B prompts.

    Attributes:
        tokens: (B, 77 + 256, D), D the width of T5.
        pooled: (B, widths of both CLIP projections).
    """

    tokens: torch.Tensor
    pooled: torch.Tensor

    def __len__(self) -> int:
        """B."""
        return len(self.tokens)

    def repeat(self, times: int) -> Embedding:
        """Every prompt so many times, copies next to each other."""
        return Embedding(*(x.repeat_interleave(times, dim=0) for x in (self.tokens, self.pooled)))

    def to(self, device: torch.device, dtype: torch.dtype) -> Embedding:
        """On a device, in a dtype."""
        return Embedding(self.tokens.to(device, dtype), self.pooled.to(device, dtype))


def checked_text(
    name: str,
    text: object,
    tokens: torch.Tensor | None,
    pooled: torch.Tensor | None,
    widths: tuple[int, int],
    num_prompts: int | None = None,
) -> list[str] | Embedding:
    """What a user passes for one branch of guidance: texts, or both parts of their embedding.

    Args:
        name: `"prompt"` or `"negative_prompt"`, for messages.
        text: one text or several.
        tokens: (B, L, D), instead.
        pooled: (B, width), with `tokens`.
        widths: D, and that of `pooled`.
        num_prompts: B; one text is repeated. None: any from 1.

    Raises:
        ValueError: neither or both, half an embedding, another width or number of prompts.
    """
    if tokens is None and pooled is None:
        return checked_prompts(name, text, num_prompts)
    pooled_name = f"{name.replace('prompt', 'pooled_prompt')}_embeds"
    require(text is None, name, text, f"nothing beside {name}_embeds")
    require(tokens is not None, f"{name}_embeds", tokens, f"a tensor beside {pooled_name}")
    require(pooled is not None, pooled_name, pooled, f"a tensor beside {name}_embeds")
    assert tokens is not None and pooled is not None, "checked"
    width, pooled_width = widths
    check_embeds(f"{name}_embeds", tokens, (num_prompts or "prompts", "tokens", width))
    check_embeds(pooled_name, pooled, (len(tokens), pooled_width))
    return Embedding(tokens, pooled)


@torch.no_grad()
def embed_tokens(encoders: Sequence[Any], ids: Sequence[torch.Tensor]) -> Embedding:
    """Embed token ids.

    Both CLIP encoders give their last hidden state but one, side by side, filled up with zeros to the width
    of T5; T5 follows along the tokens, padding included.

    Args:
        encoders: two `CLIPTextModelWithProjection` and a `T5EncoderModel`.
        ids: (B, 77) twice and (B, 256), on the encoders' device.
    """
    *clips, t5 = encoders
    outputs = [clip(part, output_hidden_states=True) for clip, part in zip(clips, ids[:2], strict=True)]
    words = t5(ids[2]).last_hidden_state
    clip_words = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1).to(words.dtype)
    clip_words = F.pad(clip_words, (0, words.shape[-1] - clip_words.shape[-1]))
    pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
    return Embedding(torch.cat([clip_words, words], dim=1), pooled)
