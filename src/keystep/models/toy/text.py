"""Words to embeddings: a word-level tokenizer over the grammar and a one-layer T5 encoder.

Shape suffixes: B prompts, L tokens, D text width.
"""

import warnings
from collections.abc import Sequence

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from keystep.models.toy.grammar import CONTENT_WORDS, FILLER_WORDS

MAX_TOKENS = 8  # a full caption has six content words
TEXT_WIDTH = 64
PAD, UNKNOWN = "<pad>", "<unk>"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a content word; articles and other fillers are dropped, so every token carries meaning."""
    words = (PAD, UNKNOWN, *CONTENT_WORDS)
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token=UNKNOWN))
    fillers = Regex(rf"\b({'|'.join(FILLER_WORDS)})\b|[^\w\s]")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(fillers, " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, model_max_length=MAX_TOKENS
    )


def build_text_encoder() -> T5EncoderModel:
    """An untrained encoder for the grammar's vocabulary."""
    config = T5Config(
        vocab_size=len(CONTENT_WORDS) + 2,
        d_model=TEXT_WIDTH,
        d_kv=32,
        num_heads=2,
        d_ff=2 * TEXT_WIDTH,
        num_layers=1,
        dropout_rate=0.0,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=2 * MAX_TOKENS,
        pad_token_id=0,
        use_cache=False,
    )
    return T5EncoderModel(config)


def embed_prompts(
    tokenizer: PreTrainedTokenizerFast, text_encoder: T5EncoderModel, prompts: Sequence[str]
) -> torch.Tensor:
    """Embed prompts, padded to a fixed length; padding is zero, so the empty prompt is all zeros.

    Args:
        tokenizer: from `build_tokenizer`.
        text_encoder: from `build_text_encoder`.
        prompts: B texts; those beyond `MAX_TOKENS` content words lose the rest.

    Returns:
        (B, L, D) in the encoder's dtype, on its device.
    """
    batch = tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
    )
    ids_BL = batch["input_ids"].to(text_encoder.device)
    mask_BL = batch["attention_mask"].to(text_encoder.device)
    embeds_BLD = text_encoder(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
    return embeds_BLD * mask_BL[..., None]


def warn_about_unknown_words(tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str]) -> None:
    """Warn once, naming every word of the prompts that the model has never seen and all that it knows."""
    backend = tokenizer.backend_tokenizer
    vocabulary = tokenizer.get_vocab()
    unknown: list[str] = []
    for prompt in prompts:
        pieces = backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(prompt))
        unknown += [word for word, _ in pieces if word not in vocabulary and word not in unknown]
    if unknown:
        known = ", ".join((*CONTENT_WORDS, *FILLER_WORDS))
        warnings.warn(f"the toy model does not know {unknown}; known words: {known}", stacklevel=3)
