"""Rows of guidance branches: cutting a tensor by branch, and joining the parts again."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import keystep
from keystep.engine.tap import Tap
from keystep.how import Hold
from keystep.policy import Policy, Rule
from keystep.what import Attention
from keystep.what.branch import join_rows, rows_of
from keystep.when import Every
from tests.capability.subjects import SUBJECTS, pipe_of

BRANCHES = ("uncond", "cond")


def parts_of(tensor: torch.Tensor) -> list[torch.Tensor]:
    return [rows_of(tensor, branch, BRANCHES) for branch in BRANCHES]


def test_parts_of_one_tensor_are_joined_without_a_copy() -> None:
    tensor = torch.randn(4, 3, 5)
    joined = join_rows(parts_of(tensor))
    assert torch.equal(joined, tensor)
    assert joined.data_ptr() == tensor.data_ptr()


@pytest.mark.parametrize(
    "parts",
    [
        parts_of(torch.arange(12.0).reshape(4, 3))[::-1],
        [part.clone() for part in parts_of(torch.arange(12.0).reshape(4, 3))],
        parts_of(torch.arange(12.0).reshape(3, 4).T),
        parts_of(torch.arange(18.0).reshape(6, 3)[::2][:2]),
        [torch.arange(4.0)[:2], torch.arange(4)[2:]],
    ],
    ids=["swapped", "copies", "transposed", "with gaps", "other types"],
)
def test_others_are_joined_as_they_are(parts: list[torch.Tensor]) -> None:
    assert torch.equal(join_rows(parts), torch.cat(parts))


def test_held_outputs_of_both_branches_are_handed_out_without_a_copy(monkeypatch: Any) -> None:
    pipe = pipe_of("latte")
    computed, handed_out = [], []
    take, skip = Tap.take, Tap.skip

    def watch_take(tap: Tap) -> Any:
        value = take(tap)
        if not tap.should_skip:
            computed.append(value.data_ptr())
        return value

    def watch_skip(tap: Tap, value: Any) -> None:
        handed_out.append(value.data_ptr())
        skip(tap, value)

    monkeypatch.setattr(Tap, "take", watch_take)
    monkeypatch.setattr(Tap, "skip", watch_skip)
    with keystep.accelerate(pipe, Policy((Rule(Attention(), Every(2), Hold()),))):
        SUBJECTS["latte"].sample(pipe, 1, True, 4)
    assert len(handed_out) >= 2
    assert set(handed_out) <= set(computed)
