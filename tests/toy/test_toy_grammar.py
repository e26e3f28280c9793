from collections import Counter

import pytest
import torch

from keystep.models.toy.grammar import (
    CONTENT_WORDS,
    FILLER_WORDS,
    Caption,
    all_captions,
    development_prompts,
    held_out_prompts,
    parse_prompt,
    write_prompt_lists,
)
from keystep.models.toy.scenes import sample_training_captions
from keystep.models.toy.text import MAX_TOKENS, build_text_encoder, build_tokenizer, embed_prompts


def test_every_caption_reads_back_from_its_prompt():
    captions = all_captions()
    assert len({caption.prompt for caption in captions}) == len(captions)
    assert all(parse_prompt(caption.prompt) == caption for caption in captions)


def test_word_order_and_fillers_do_not_matter():
    caption = Caption("small", "red", "circle", "left", "slowly", "striped")
    assert parse_prompt("striped LEFT slowly circle small red") == caption


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a small crimson circle resting on a dark background", "crimson"),
        ("a small circle resting on a dark background", "exactly one colour"),
        ("a small red circle moving left on a dark background", "exactly one pace"),
    ],
)
def test_incomplete_prompts_are_refused(prompt, message):
    with pytest.raises(ValueError, match=message):
        parse_prompt(prompt)


def test_caption_names_the_bad_field():
    with pytest.raises(ValueError, match="Caption.pace is 'slowly'; allowed: ''"):
        Caption("small", "red", "circle", "rest", "slowly", "dark")


def test_training_never_sees_a_held_out_triple():
    generator = torch.Generator().manual_seed(0)
    captions = sample_training_captions(5000, generator)
    assert not any(caption.is_held_out for caption in captions)
    seen = {(caption.shape, caption.colour, caption.motion) for caption in captions}
    held_out = [parse_prompt(prompt) for prompt in held_out_prompts(96)]
    assert not seen & {(caption.shape, caption.colour, caption.motion) for caption in held_out}
    share = sum(caption.is_held_out for caption in all_captions()) / len(all_captions())
    assert 0.15 < share < 0.25


@pytest.mark.parametrize("make", [development_prompts, held_out_prompts])
def test_prompt_lists_hold_all_speeds_equally(make):
    prompts = make(48)
    assert len(set(prompts)) == 48
    assert make(48) == prompts
    assert make(12) == prompts[:12]
    assert Counter(parse_prompt(prompt).speed for prompt in prompts) == {"still": 16, "slow": 16, "fast": 16}


def test_lists_do_not_overlap_and_know_their_limit():
    assert not set(development_prompts(96)) & set(held_out_prompts(96))
    with pytest.raises(ValueError, match="num_prompts is 100000; allowed: 1 to"):
        held_out_prompts(100_000)


def test_lists_are_written_a_prompt_a_line(tmp_path):
    development, held_out = write_prompt_lists(tmp_path / "lists", num_prompts=6)
    assert development.read_text().splitlines() == development_prompts(6)
    assert held_out.read_text().splitlines() == held_out_prompts(6)


def test_tokenizer_keeps_content_words_in_order():
    tokenizer = build_tokenizer()
    for caption in all_captions()[::97]:
        ids = tokenizer(caption.prompt)["input_ids"]
        words = [word for word in caption.prompt.split() if word not in FILLER_WORDS]
        assert tokenizer.convert_ids_to_tokens(ids) == words
    assert len(tokenizer) == len(CONTENT_WORDS) + 2


def test_empty_prompt_embeds_to_zero_and_padding_does_not_leak():
    tokenizer, encoder = build_tokenizer(), build_text_encoder().eval()
    with torch.no_grad():
        empty, short = embed_prompts(tokenizer, encoder, ["", "red circle"])
    assert empty.shape == (MAX_TOKENS, encoder.config.d_model)
    assert empty.abs().max() == 0
    assert short[2:].abs().max() == 0
    assert (short[:2].abs().amax(-1) > 0).all()
