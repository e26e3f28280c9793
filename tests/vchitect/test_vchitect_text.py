"""Prompts: what is cut is said, and how three embeddings make one. Numbers: `tests/parity/vchitect.py`."""

from __future__ import annotations

import warnings

import pytest
import torch

from keystep.models.t5 import PromptTruncatedWarning, tokenize
from keystep.models.vchitect.text import CLIP_TOKENS, T5_TOKENS


def test_nothing_is_said_of_prompts_that_fit(pipe) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ids = tokenize(pipe.tokenizer, ["a dog", " ".join(["a"] * 75)], CLIP_TOKENS)[0]
    assert ids.shape == (2, 77)
    assert ids[0, :5].tolist() == [2, 4, 5, 3, 0]
    assert ids[1, -1] == 3


def test_what_is_cut_is_said(pipe) -> None:
    prompt = " ".join(["a"] * 75 + ["cat", "sleeps"])
    with pytest.warns(
        PromptTruncatedWarning, match="^negative: has 79 tokens, allowed: 77 for CLIP; .*: 'cat sleeps'"
    ):
        ids = tokenize(pipe.tokenizer, ["a dog", prompt], CLIP_TOKENS, "negative", "CLIP")[0]
    assert ids[1].tolist() == [2] + [4] * 75 + [3]


def test_every_encoder_warns_of_its_own_limit(pipe) -> None:
    prompt = " ".join(["the"] * 254 + ["cat", "in", "rain"])
    with pytest.warns(PromptTruncatedWarning) as caught:
        pipe._embed([prompt])
    messages = [str(warning.message) for warning in caught]
    assert ["allowed: 77 for" in message for message in messages] == [True, True, False]
    assert messages[2].endswith(
        "259 tokens, allowed: 256 for text_encoder_3; this part was cut: 'cat in rain'"
    )


def test_layout_of_an_embedding(pipe) -> None:
    embedding = pipe._embed(["a dog", "a cat in the sun"])
    assert embedding.tokens.shape == (2, CLIP_TOKENS + T5_TOKENS, 24)
    assert embedding.pooled.shape == (2, 4 + 6)
    clips = embedding.tokens[:, :CLIP_TOKENS]
    assert not clips[..., 8 + 12 :].any()
    assert clips[..., : 8 + 12].abs().amax(dim=1).all()
    assert embedding.tokens[:, CLIP_TOKENS:].abs().amax(dim=1).all()


def test_copies_of_a_prompt_lie_next_to_each_other(pipe) -> None:
    embedding = pipe._embed(["a dog", "a cat"])
    copies = embedding.repeat(3)
    assert torch.equal(copies.tokens, embedding.tokens[[0, 0, 0, 1, 1, 1]])
    assert torch.equal(copies.pooled, embedding.pooled[[0, 0, 0, 1, 1, 1]])
