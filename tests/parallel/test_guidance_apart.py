"""Each guidance branch on ranks of its own: the video, and the decisions, of one rank."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from keystep.models.registry import SPECS
from keystep.ranks.group import Group
from keystep.ranks.guidance import Pending, SplitGuidance
from tests.parallel import guidance_work as work
from tests.parallel.launch import launch
from tests.parallel.test_parallel_equals import alone, check_equal
from tests.parallel.work import GUIDED

METHODS = ("plain", "adacache+moreg")
# One for each kind of site and signal; a skip is decided before the call, in its middle, or behind it.
OTHERS = ("fastercache-attention", "fbcache", "easycache")


@pytest.mark.parametrize("name", ["latte", "cogvideox", "wan"])
@pytest.mark.parametrize("ulysses", [1, 2])
def test_ranks_make_the_video_of_one(name: str, ulysses: int) -> None:
    ranks = launch(work.generate_apart, 2 * ulysses, name, METHODS, ulysses, {})
    for every in ranks:
        for method, made in every.items():
            check_equal(made, alone(name, method))
        assert "s" in every["adacache+moreg"].decisions["span"], "or this says nothing"
    sent = [{method: made.traffic.num_bytes for method, made in every.items()} for every in ranks]
    if ulysses > 1:
        assert all(each["adacache+moreg"] < each["plain"] for each in sent)


@pytest.mark.parametrize("name", ["latte", "wan"])
def test_other_sites_and_batches(name: str) -> None:
    for every in launch(work.generate_apart, 2, name, OTHERS, 1, {"batch": 2}):
        for method, made in every.items():
            check_equal(made, alone(name, method, batch=2))
            assert any("s" in line for line in made.decisions.values())


@pytest.mark.parametrize("name", ["latte", "wan"])
def test_guided_output(name: str) -> None:
    for every in launch(work.generate_apart, 2, name, tuple(GUIDED), 1, {}):
        for method, made in every.items():
            check_equal(made, alone(name, method))


@pytest.mark.parametrize("name", ["opensora", "vchitect"])
def test_other_orders_of_the_branches(name: str) -> None:
    for every in launch(work.generate_apart, 2, name, METHODS[1:], 1, {"steps": 8}):
        for method, made in every.items():
            check_equal(made, alone(name, method, steps=8))


@pytest.mark.parametrize("name", ["latte", "wan"])
def test_either_may_come_first_and_nothing_is_left(name: str) -> None:
    wanted = alone(name, "adacache").latents
    for videos, left in launch(work.attach_in_orders, 2, name):
        assert left == []
        for latents in videos:
            assert (latents - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_cfg_cache_is_refused() -> None:
    for said in launch(work.ask_for_cfg_cache, 2):
        assert len(said) == 2
        for message in said:
            assert message.startswith("ValueError: policy 'fastercache': it rebuilds one guidance branch")
            assert "half of the ranks would stand idle; use cfg=1" in message


@pytest.mark.parametrize("name", ["latte", "wan"])
def test_without_guidance(name: str) -> None:
    for message in launch(work.leave_guidance, 2, name):
        assert (
            message == "ValueError: cfg: given 2, allowed: 1, for guidance is off: there is one branch only"
        )


def test_calls_by_hand_and_guidance_that_pauses() -> None:
    (outputs, first), (others, second) = launch(work.pause_guidance, 2)
    assert all(torch.equal(a, b) for a, b in zip(outputs, others, strict=True))
    assert not torch.equal(*outputs)
    for message in (first, second):
        assert "asked for the branch cond only in this evaluation" in message


# ---------------------------------------------------------------- what is still to come


def pending() -> Pending:
    return torch.Tensor._make_subclass(Pending, torch.empty(2, 3))


def test_what_is_still_to_come_cannot_be_used() -> None:
    value = pending()
    assert (value.shape, value.dtype, value.device.type) == ((2, 3), torch.float32, "cpu")
    for use in (
        lambda: value + 1,
        value.float,
        lambda: value[0],
        lambda: torch.cat([value, value]),
        value.sum,
    ):
        with pytest.raises(RuntimeError, match="uses the output of its first call .* use cfg=1"):
            use()


def test_what_has_come_is_a_tensor_like_others() -> None:
    value, kept = pending(), torch.rand(2, 3)
    alias = value
    value.fill(kept)
    assert type(alias) is torch.Tensor
    assert torch.equal(alias + 1, kept + 1)


@pytest.mark.parametrize("name", ["ltx-2", "kandinsky-6"])
def test_models_that_give_more_than_a_video(name: str) -> None:
    with pytest.raises(ValueError, match="cfg: given 2, allowed: 1, for .* more than a video"):
        SplitGuidance(Group(None, (0, 1), 0), 0, nn.Identity(), SPECS[name])
