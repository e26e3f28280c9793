"""VACE's hints: the same video where nothing is skipped, and no hint block runs for a skipped span."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

import keystep
from keystep import AdaCache, Policy, Rule
from keystep.how import Hold
from keystep.methods import FBCache, SeaCache
from keystep.models.wan import VACE as SPEC
from keystep.what import Span
from keystep.when import Always, Mask
from tests.families.parts import STEPS, Family
from tests.families.wan_like import FAMILIES

VACE: Family = next(family for family in FAMILIES if family.name == "wan-vace")
LETTERS = "CCsCCssCsCsC"
MASKED = Policy((Rule(Span(), Mask(LETTERS), Hold()),))
BEHIND = Policy((Rule(Span(num_after=1), Mask(LETTERS), Hold()),))


@pytest.fixture(scope="module")
def pipe() -> Any:
    return VACE.build()


def calls(pipe: Any, policy: Any) -> tuple[torch.Tensor, Counter[str], list[bool]]:
    """Latents, how often each block of both stacks ran, and which evaluations skipped."""
    ran: Counter[str] = Counter()
    handles = [
        pipe.transformer.get_submodule(name).register_forward_pre_hook(
            lambda *_, name=name: ran.update([name])
        )
        for name in ("vace_blocks.0", "vace_blocks.1", "blocks.0", "blocks.1", "blocks.2")
    ]
    try:
        with keystep.accelerate(pipe, policy) as session:
            latents = VACE.sample(pipe)
    finally:
        for handle in handles:
            handle.remove()
    assert session.trace is not None
    return latents, ran, [bool(row.skipped) for row in session.trace.rows]


def test_promises_are_kept_to_the_bit(pipe: Any) -> None:
    always = Policy((Rule(Span(), Always(), Hold()),))
    latents, ran, _ = calls(pipe, always)
    assert torch.equal(latents, VACE.sample(pipe))
    assert set(ran.values()) == {2 * STEPS}, "each block once a branch and evaluation"


@pytest.mark.parametrize(
    "policy",
    [MASKED, SeaCache(9.0), AdaCache({9.0: 2}, native=STEPS)],
)
def test_no_hint_is_made_for_a_skipped_stack(pipe: Any, policy: Any) -> None:
    _, ran, skipped = calls(pipe, policy)
    num_computed = skipped.count(False)
    assert 0 < num_computed < STEPS and set(ran.values()) == {2 * num_computed}


def test_hints_of_the_blocks_around_a_skipped_span_are_made(pipe: Any) -> None:
    """Block 0 has a hint, block 2 the other; the first always runs here, with its hint alone."""
    _, ran, skipped = calls(pipe, FBCache(9.0))
    num_computed = skipped.count(False)
    assert 0 < num_computed < STEPS
    assert ran["blocks.0"] == ran["vace_blocks.0"] == 2 * STEPS
    assert ran["blocks.2"] == ran["vace_blocks.1"] == 2 * num_computed


def test_a_block_behind_the_span_gets_its_hint(pipe: Any) -> None:
    """With blocks 0 and 1 held, the hint of block 2 and what it stands on are computed all the same."""
    _, ran, skipped = calls(pipe, BEHIND)
    num_computed = skipped.count(False)
    assert ran["blocks.1"] == 2 * num_computed
    assert ran["blocks.2"] == ran["vace_blocks.0"] == ran["vace_blocks.1"] == 2 * STEPS


@pytest.mark.parametrize("policy", [MASKED, BEHIND, FBCache(9.0), SeaCache(9.0, cfg=True)])
def test_the_video_is_that_of_hints_made_in_vain(pipe: Any, policy: Any) -> None:
    latents, _, skipped = calls(pipe, policy)
    with keystep.accelerate(pipe, policy, spec=replace(SPEC, hints={})):
        expected = VACE.sample(pipe)
    assert any(skipped) and torch.equal(latents, expected)


def test_blocks_between_those_of_the_stack_do_not_run_in_a_skipped_one() -> None:
    """Wan-Animate adds the face's motion behind every second block here."""
    family = next(family for family in FAMILIES if family.name == "wan-animate")
    pipe, ran = family.build(), Counter[str]()
    for name in ("face_adapter.0", "face_adapter.1", "blocks.1"):
        part = pipe.transformer.get_submodule(name)
        part.register_forward_pre_hook(lambda *_, name=name: ran.update([name]))
    with keystep.accelerate(pipe, FBCache(9.0)) as session:
        family.sample(pipe)
    assert session.trace is not None
    num_computed = sum(not row.skipped for row in session.trace.rows)
    assert 0 < num_computed < STEPS
    counts = {"face_adapter.0": 2 * STEPS, "face_adapter.1": 2 * num_computed, "blocks.1": 2 * num_computed}
    assert ran == counts, "block 0 always runs, and what is added behind it"
