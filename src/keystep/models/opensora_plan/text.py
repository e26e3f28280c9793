"""Prompts of Open-Sora-Plan 1.1 to T5 embeddings.

Source: PKU-YuanGroup/Open-Sora-Plan v1.1.0, `opensora/sample/pipeline_videogen.py`. There is no mask in the
cross-attention: what stands after a prompt's end is cut off, or zero where several prompts share a batch.

Shape suffixes: B prompts, L tokens, C channels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from keystep.models.t5 import PromptTruncatedWarning, clean, embed

MAX_TOKENS = 300  # T5 tokens the transformer was trained with


def prepare_prompts(prompts: Sequence[str], clean_caption: bool = True) -> list[str]:
    """What T5 reads: lower case; with `clean_caption` without addresses, tags and odd punctuation, too."""
    return [clean(prompt) if clean_caption else prompt.lower().strip() for prompt in prompts]


def encode_prompts(
    tokenizer: Any, text_encoder: Any, prompts: Sequence[str], device: torch.device
) -> torch.Tensor:
    """Embeddings of prepared prompts.

    Args:
        tokenizer: of T5.
        text_encoder: T5.
        prompts: B texts; what exceeds 300 tokens is cut with a warning that quotes it.
        device: of the text encoder.

    Returns:
        (B, L, C), in the encoder's dtype. One prompt: L is its number of tokens. Several: L is 300, and zero
        after each prompt's end.
    """
    embeds_BLC, mask_BL = embed(tokenizer, text_encoder, prompts, MAX_TOKENS, device)
    if len(prompts) == 1:
        return embeds_BLC[:, : int(mask_BL.sum())]
    return embeds_BLC * mask_BL[..., None].to(embeds_BLC.dtype)


def encode_negatives(
    tokenizer: Any, text_encoder: Any, prompts: Sequence[str], num_tokens: int, device: torch.device
) -> torch.Tensor:
    """Embeddings of prepared negative prompts, as long as those of the prompts.

    Args:
        tokenizer: of T5.
        text_encoder: T5.
        prompts: B texts.
        num_tokens: L. Longer texts are cut with a warning; after the end of shorter ones come T5's embeddings
            of padding, as in training: the empty prompt is one token and L - 1 of them.
        device: of the text encoder.

    Returns:
        (B, L, C), in the encoder's dtype.
    """
    embeds_BLC, mask_BL = embed(tokenizer, text_encoder, prompts, max(MAX_TOKENS, num_tokens), device)
    for prompt, length in zip(prompts, mask_BL.sum(dim=1).tolist(), strict=True):
        if length > num_tokens:
            warnings.warn(
                f"negative_prompt: {prompt!r} has {length} tokens; only the first {num_tokens} count, "
                "as many as the prompt has",
                PromptTruncatedWarning,
                stacklevel=2,
            )
    return embeds_BLC[:, :num_tokens]
