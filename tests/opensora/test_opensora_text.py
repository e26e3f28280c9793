"""Prompts of Open-Sora 1.2: recorded texts exactly; long ones are cut, and the warning says what was cut."""

import json
import warnings
from pathlib import Path

import pytest
import torch

from keystep.models import t5
from keystep.models.opensora import text
from tests.opensora.tiny import tiny_text_encoder, tiny_tokenizer

RECORDED = json.loads((Path(__file__).parents[1] / "data/opensora12/text/text_pairs.json").read_text())


@pytest.mark.parametrize("pair", RECORDED, ids=lambda pair: f"{pair['prompt'][:12]}-{len(pair['scores'])}")
def test_recorded_prompts(pair):
    given = pair["scores"]
    scores = text.Scores(given.get("aes"), given.get("flow"), given.get("camera_motion"))
    segments = text.split_clips(pair["prompt"])
    assert [segment.text for segment in segments] == pair["segments"]
    assert [segment.clip for segment in segments] == (pair["loop_index"] or [0])
    scored = [scores.append_to(segment.text) for segment in segments]
    assert scored == pair["with_scores"]
    cleaned = [t5.clean(part) for part in scored]
    assert cleaned == pair["cleaned_segments"]
    parts = [text.Segment(s.clip, part) for s, part in zip(segments, cleaned, strict=True)]
    assert text.join_clips(parts) == pair["merged"]
    assert text.prepare_prompt(pair["prompt"], scores) == pair["for_loop_0"]


def test_a_clip_has_the_text_of_the_last_segment_that_began():
    prompt = "|0| a day |2| a night"
    assert [text.prepare_prompt(prompt, text.Scores(), clip) for clip in range(4)] == [
        "a day",
        "a day",
        "a night",
        "a night",
    ]


@pytest.mark.parametrize("prompt", ["|0| a day |", "|0| a day |x| a night", "|0| a |2| b |1| c"])
def test_bad_clip_numbers(prompt):
    with pytest.raises(ValueError, match="prompt: given .* allowed: clip numbers"):
        text.split_clips(prompt)


def test_long_prompts_are_cut_and_the_warning_says_what():
    tokenizer = tiny_tokenizer()
    short, long = "a red cat", "a red cat on a blue hill"
    with pytest.warns(t5.PromptTruncatedWarning, match="prompt: has 8 tokens") as caught:
        ids, mask = t5.tokenize(tokenizer, [short, long], 6)
    assert "allowed: 6; this part was cut: 'blue hill'" in str(caught[0].message)
    assert len(caught) == 1
    assert ids.shape == mask.shape == (2, 6)
    assert mask.tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]
    assert tokenizer.decode(ids[1]) == "a red cat on a </s>"


def test_a_prompt_that_just_fits_is_not_cut():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        t5.tokenize(tiny_tokenizer(), ["a red cat on a"], 6)


def test_padding_does_not_change_the_embedding_of_a_prompt():
    tokenizer, encoder = tiny_tokenizer(), tiny_text_encoder(width=16)
    with torch.no_grad():
        few, mask = t5.embed(tokenizer, encoder, ["a red cat"], 6, torch.device("cpu"))
        many, _ = t5.embed(tokenizer, encoder, ["a red cat"], 12, torch.device("cpu"))
    valid = int(mask.sum())
    assert few.shape == (1, 6, 16)
    torch.testing.assert_close(few[:, :valid], many[:, :valid])
