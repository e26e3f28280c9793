"""Tiny random parts of an Open-Sora pipeline, made without any download."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from keystep.models.opensora.pipeline import OpenSoraPipeline
from keystep.models.opensora.scheduler import RectifiedFlowScheduler
from keystep.models.opensora.transformer import STDiT3
from keystep.models.opensora.vae import AutoencoderKLOpenSora
from tests.zoo import randomize

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


def tiny_transformer() -> STDiT3:
    """Random everywhere, for 20 tokens of width 16."""
    return randomize(STDiT3(hidden_size=32, depth=2, num_heads=2, caption_channels=16, model_max_length=20))  # type: ignore[return-value]


def tiny_vae() -> AutoencoderKLOpenSora:
    """Random, of the released layout: 4 x 8 x 8, chunks of 17 frames."""
    torch.manual_seed(1)
    return AutoencoderKLOpenSora(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        temporal_widths=(8, 8, 8, 8),
        temporal_layers_per_block=1,
        temporal_norm_num_groups=4,
    ).eval()


def tiny_pipeline() -> OpenSoraPipeline:
    """All parts tiny; quiet."""
    pipe = OpenSoraPipeline(
        tiny_tokenizer(), tiny_text_encoder(16), tiny_transformer(), tiny_vae(), RectifiedFlowScheduler()
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
