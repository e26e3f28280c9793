"""Mask strategies: recorded ones give the recorded masks and latents, bad ones say what is wrong."""

import json
from dataclasses import astuple
from pathlib import Path

import pytest
import torch

from keystep.models.opensora import conditions

RECORDED = json.loads(
    (Path(__file__).parents[1] / "data/goldens/opensora12/text/mask_strategy.json").read_text()
)


def numbered(num_frames: int, reference: int) -> torch.Tensor:
    """(C, T, H, W) whose values are 100 * reference + 1, 2, ... frame by frame."""
    return (100 * reference + 1.0 + torch.arange(num_frames))[None, :, None, None].expand(2, -1, 3, 3)


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: case["mask_strategy"] or "none")
def test_recorded_strategies(case):
    strategy = case["mask_strategy"]
    assert [list(astuple(condition)) for condition in conditions.parse(strategy)] == case["parsed"]
    references = [numbered(frames, index) for index, frames in enumerate(case["ref_latent_frames"])]
    latents, mask = conditions.apply(
        torch.zeros(1, 2, case["latent_frames"], 3, 3),
        [references],
        [strategy],
        clip=case["loop_i"],
        chunk=case["align"],
    )
    assert mask.tolist() == [case["mask"]]
    for value, frame in zip(case["z_after"], latents[0].unbind(1), strict=True):
        assert (frame == value).all()


def test_videos_have_their_own_conditions_and_the_noise_stays_as_it_is():
    noise = torch.randn(3, 2, 10, 3, 3, generator=torch.Generator().manual_seed(0))
    before = noise.clone()
    latents, mask = conditions.apply(
        noise, [[numbered(1, 0)], [], [numbered(5, 1)]], ["0", "", "0,0,0,-5,5,1"]
    )
    assert torch.equal(noise, before)
    assert mask.tolist() == [[0.0] + [1.0] * 9, [1.0] * 10, [1.0] * 10]
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
        ("0,0,0,0,1,1.5", "edit_ratio: given 1.5, allowed: 0"),
        ("0,2", "reference: given 2, allowed: one of 1 given"),
        ("0,0,9", "reference_start: given 9, allowed: a frame of 5"),
        ("0,0,0,-11", "target_start: given -11, allowed: a frame of 10"),
    ],
)
def test_bad_strategies(strategy, message):
    with pytest.raises(ValueError, match=message):
        conditions.apply(torch.zeros(1, 2, 10, 3, 3), [[numbered(5, 0)]], [strategy])
