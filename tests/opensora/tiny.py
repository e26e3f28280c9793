"""Tiny random parts of an Open-Sora pipeline, made without any download."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

WORDS = ["a", "red", "blue", "cat", "dog", "on", "hill", "aesthetic", "score", ":", ".", "6", "5"]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Words instead of pieces, with T5's special tokens: padding 0, end 1."""
    vocabulary = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def tiny_text_encoder(width: int) -> T5EncoderModel:
    """One T5 layer of the given width."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(WORDS) + 3,
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config).eval()
