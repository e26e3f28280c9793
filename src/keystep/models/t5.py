"""T5 as text-to-video models were trained with it: cleaned captions, a fixed number of tokens, their mask.

Shape suffixes: B prompts, L tokens, C channels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from bs4 import MarkupResemblesLocatorWarning
from diffusers.pipelines.latte.pipeline_latte import LattePipeline
from transformers import T5EncoderModel

from keystep.errors import require
from keystep.models.parts import ALLOWED, AUTO, Loader, is_auto, is_place, load_model, load_tokenizer

RELEASED = "DeepFloyd/t5-v1_1-xxl"
LOADERS: dict[str, Loader] = {
    "tokenizer": load_tokenizer,
    "text_encoder": partial(load_model, T5EncoderModel),  # last: 19 GB
}
_CLEANER: Any = LattePipeline  # any diffusers pipeline with T5 holds the caption cleaning of the training


class PromptTruncatedWarning(UserWarning):
    """Part of a prompt did not fit into the model's tokens and has no effect."""


def add_tokenizer(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Places of a checkpoint's parts, the tokenizer's too: where it has none it lies beside the text encoder.

    Args:
        own: places by name, "text_encoder" among them.
        given: parts that the user chose, by name.

    Raises:
        ValueError: the text encoder is an object, and nothing says where its tokenizer is.
    """
    encoder = own["text_encoder"] if is_auto(given["text_encoder"]) else given["text_encoder"]
    tokenizer = own.get("tokenizer") or (encoder if is_place(encoder) else None)
    is_known = encoder is None or tokenizer is not None or not is_auto(given["tokenizer"])
    require(is_known, "tokenizer", AUTO, f"{ALLOWED}, as the text encoder is an object")
    return {**own, "tokenizer": tokenizer}


def clean(text: str) -> str:
    """Lower case, without addresses, tags, file names and odd punctuation; applied twice, as in training."""
    with warnings.catch_warnings():
        # texts that look like a path are prompts all the same
        warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)
        return _CLEANER._clean_caption(_CLEANER, _CLEANER._clean_caption(_CLEANER, text))


def tokenize(
    tokenizer: Any, texts: Sequence[str], max_tokens: int, field: str = "prompt", reader: str = ""
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their mask, for T5 or CLIP; warns about text that is cut off.

    Args:
        tokenizer: ends every text with a token of its own.
        texts: B of them.
        max_tokens: L, what ids are padded to, special tokens included.
        field: the argument that the texts are from, for the warning.
        reader: which of several text encoders it is, likewise.

    Returns:
        Two tensors (B, L).
    """
    encoded = tokenizer(
        list(texts), max_length=max_tokens, padding="max_length", truncation=True, return_tensors="pt"
    )
    for ids in tokenizer(list(texts), truncation=False, verbose=False).input_ids:
        if len(ids) > max_tokens:
            # the last token kept is the end of the text
            cut = tokenizer.decode(ids[max_tokens - 1 :], skip_special_tokens=True)
            warnings.warn(
                f"{field}: has {len(ids)} tokens, allowed: {max_tokens}{reader and f' for {reader}'}; "
                f"this part was cut: {cut!r}",
                PromptTruncatedWarning,
                stacklevel=2,
            )
    return encoded.input_ids, encoded.attention_mask


def embed(
    tokenizer: Any, text_encoder: Any, texts: Sequence[str], max_tokens: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """T5's last hidden states (B, L, C), in the encoder's dtype, and the mask of the tokens (B, L)."""
    ids, mask = tokenize(tokenizer, texts, max_tokens)
    ids, mask = ids.to(device), mask.to(device)
    return text_encoder(ids, attention_mask=mask)[0], mask


def drop_padding(embeds_BLC: torch.Tensor, mask_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Cut embeddings to the tokens that any prompt uses; the mask is None where all prompts use all of them.

    Without a mask the fastest attention kernels apply, and most texts are far shorter than the longest
    allowed one. Reads from the device: once a generation, not in the denoising loop.
    """
    used_BL = mask_BL.bool()
    columns_L = used_BL.any(dim=0)
    used_BL = used_BL[:, columns_L]
    return embeds_BLC[:, columns_L], None if used_BL.all() else used_BL
