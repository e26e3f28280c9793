"""The prompts of published figures are files, and what the bench uses."""

from pathlib import Path

import pytest

from keystep.lab.trained import NUM_PROMPTS, shipped_subject
from keystep.models.toy.grammar import parse_prompt

PROMPTS = Path(__file__).parents[2] / "bench" / "prompts"


@pytest.mark.parametrize("name", ["held_out", "development"])
def test_lists_are_what_the_bench_uses(name):
    subject = shipped_subject("toy", lambda: None)
    used = subject.prompts if name == "held_out" else subject.development_prompts
    assert list(used) == (PROMPTS / f"{name}.txt").read_text().splitlines()
    assert len(set(used)) == NUM_PROMPTS


def test_held_out_prompts_are_not_tuned_on_and_move_in_equal_parts():
    subject = shipped_subject("toy", lambda: None)
    assert not set(subject.prompts) & set(subject.development_prompts)
    speeds = [parse_prompt(prompt).speed for prompt in subject.prompts[:30]]
    assert {speeds.count(speed) for speed in speeds} == {10}
