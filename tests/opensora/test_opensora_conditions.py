"""Mask strategies: recorded ones give the recorded masks and latents, bad ones say what is wrong."""

import json
from dataclasses import astuple
from pathlib import Path

import pytest
import torch

from keystep.models.opensora import conditions

RECORDED = json.loads((Path(__file__).parents[1] / "data/opensora12/text/mask_strategy.json").read_text())


def numbered(num_frames: int, reference: int) -> torch.Tensor:
    """(C, T, H, W) whose values are 100 * reference + 1, 2, ... frame by frame."""
    return (100 * reference + 1.0 + torch.arange(num_frames))[None, :, None, None].expand(2, -1, 3, 3)


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["mask_strategy"] or "none")
def test_recorded_strategies(case):
    strategy, available, num_frames = case["mask_strategy"], case["ref_latent_frames"], case["latent_frames"]
    assert [list(astuple(condition)) for condition in conditions.parse(strategy)] == case["parsed"]
    references = [numbered(frames, index) for index, frames in enumerate(available)]
    placed = conditions.place(strategy, available, num_frames, clip=case["loop_i"], chunk=case["align"])
    latents, mask = conditions.apply(torch.zeros(1, 2, num_frames, 3, 3), [references], [placed])
    assert mask.tolist() == [case["mask"]]
    for value, frame in zip(case["z_after"], latents[0].unbind(1), strict=True):
        assert (frame == value).all()


def test_videos_have_their_own_conditions_and_the_noise_stays_as_it_is():
    noise = torch.randn(3, 2, 10, 3, 3, generator=torch.Generator().manual_seed(0))
    before = noise.clone()
    references = [[numbered(1, 0)], [], [numbered(5, 1)]]
    placed = [
        conditions.place("0", [1], 10),
        conditions.place("", [], 10),
        conditions.place("0,0,0,-5,5,0.5", [5], 10),
    ]
    latents, mask = conditions.apply(noise, references, placed)
    assert torch.equal(noise, before)
    assert mask.tolist() == [[0.0] + [1.0] * 9, [1.0] * 10, [1.0] * 5 + [0.5] * 5]
    assert torch.equal(latents[0, :, 1:], before[0, :, 1:])
    assert torch.equal(latents[1], before[1])
    assert torch.equal(latents[2, :, 5:], numbered(5, 1))


def test_a_condition_writes_itself_as_a_strategy():
    condition = conditions.Condition(clip=1, reference_start=-5, length=5, edit_ratio=0.3)
    assert conditions.parse(f"{condition};{condition}") == [condition, condition]


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("a", "mask_strategy: given 'a', allowed: up to 6 numbers"),
        ("0,0,0.5", "mask_strategy: given '0,0,0.5'"),
        ("0,0,0,0,1,0,0", "mask_strategy: given '0,0,0,0,1,0,0'"),
        ("-1", "clip: given -1"),
        ("0,0,0,0,0", "length: given 0"),
        ("0,0,0,0,1,1", "edit_ratio: given 1.0, allowed: 0 .* to below 1"),
        ("0,2", "reference: given 2, allowed: one of 1"),
        ("0,0,9", "reference_start: given 9, allowed: a frame of 5"),
        ("0,0,0,-11", "target_start: given -11, allowed: a frame of 10"),
        ("0,0,0,0,5;0,0,0,5,5", "given 'all 10 latent frames kept', allowed: one left to sample"),
    ],
)
def test_bad_strategies(strategy, message):
    with pytest.raises(ValueError, match=message):
        conditions.place(strategy, [5], 10)
