"""Taps among other people's hooks: put on top of them and below them, removed in any order, copied."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import accelerate
import pytest
import torch
from accelerate.hooks import add_hook_to_module, remove_hook_from_module
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline
from diffusers.hooks.hooks import HookRegistry
from diffusers.hooks.hooks import ModelHook as DiffusersHook

import keystep
from keystep import Policy, Rule
from keystep.engine.tap import Tap
from keystep.how import Hold
from keystep.what import Span, TimeEmbedding
from keystep.when import Accumulate, RelativeChange
from tests.laws.instruments import Count, differences, snapshot
from tests.matrix import METHODS, plain
from tests.zoo import WAN, quiet

NAMES = ("fastercache", "adacache")
CPU = torch.device("cpu")


class DiffusersCount(DiffusersHook):
    def __init__(self) -> None:
        super().__init__()
        self.num_calls = 0

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        self.num_calls += 1
        return args, kwargs


def wrap_opaquely(module: torch.nn.Module) -> Count:
    """A patch that does not say what it wraps."""
    hook, below = Count(), module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        hook.num_calls += 1
        return below(*args, **kwargs)

    module.forward = forward
    return hook


def add_accelerate(module: torch.nn.Module) -> Count:
    hook = Count()
    add_hook_to_module(module, hook)
    return hook


def add_diffusers(module: torch.nn.Module) -> DiffusersCount:
    hook = DiffusersCount()
    registry = HookRegistry.check_if_exists_or_initialize(module)
    registry.register_hook(hook, f"count {len(registry.hooks)}")
    return hook


HOOKS: list[Callable[[torch.nn.Module], Any]] = [wrap_opaquely, add_accelerate, add_diffusers]


def tapped(pipe: Any) -> list[torch.nn.Module]:
    """What fastercache, and what adacache taps."""
    return [module for block in pipe.transformer.blocks for module in (block.attn1, block.norm2)]


def accelerated(name: str) -> torch.Tensor:
    pipe = WAN.build()
    with keystep.accelerate(pipe, METHODS[name]):
        return WAN.sample(pipe)


def taps_of(model: torch.nn.Module) -> list[Tap]:
    owners = [getattr(module.forward, "__self__", None) for module in model.modules()]
    return [owner for owner in owners if isinstance(owner, Tap)]


# ------------------------------------------------------------------ on top of a hook on top of a tap


@pytest.mark.parametrize("add", HOOKS)
@pytest.mark.parametrize("name", NAMES)
def test_enabling_again_after_a_tapped_forward_was_wrapped(name: str, add: Any) -> None:
    """Both ways: new settings take the old ones' place, and disable() comes between."""
    pipe, expected = WAN.build(), accelerated(name)
    keystep.enable(pipe, METHODS[name])
    hooks = [add(module) for module in tapped(pipe)]
    for _ in range(2):
        keystep.enable(pipe, METHODS[name])
        assert torch.equal(WAN.sample(pipe), expected)
    for _ in range(2):
        keystep.disable(pipe)
        before, counts = snapshot(pipe), [hook.num_calls for hook in hooks]
        assert torch.equal(WAN.sample(pipe), plain(WAN))
        assert [hook.num_calls - count for hook, count in zip(hooks, counts, strict=True)] == [32] * len(
            hooks
        )
        keystep.enable(pipe, METHODS[name])
        assert torch.equal(WAN.sample(pipe), expected)
    keystep.disable(pipe)
    assert differences(before, snapshot(pipe)) == []


@pytest.mark.parametrize("name", NAMES)
def test_offloading_an_accelerated_transformer_then_accelerating_again(name: str) -> None:
    pipe, expected = WAN.build(), accelerated(name)
    keystep.enable(pipe, METHODS[name])
    accelerate.cpu_offload(pipe.transformer, CPU)
    assert torch.equal(WAN.sample(pipe), expected)
    keystep.disable(pipe)
    assert torch.equal(WAN.sample(pipe), plain(WAN))
    keystep.enable(pipe, METHODS[name])
    assert torch.equal(WAN.sample(pipe), expected)
    keystep.disable(pipe)
    remove_hook_from_module(pipe.transformer, recurse=True)
    assert torch.equal(WAN.sample(pipe), plain(WAN))


@pytest.mark.parametrize("name", NAMES)
def test_a_tap_left_below_a_hook_holds_nothing(name: str) -> None:
    pipe, held = WAN.build(), []
    with keystep.accelerate(pipe, METHODS[name]):
        held.extend(taps_of(pipe.transformer))
        for module in tapped(pipe):
            wrap_opaquely(module)
        WAN.sample(pipe)
    WAN.sample(pipe)
    assert held
    assert all(tap.value is None and not tap.should_skip for tap in held)


# ------------------------------------------------------------------ on top of a hook, below a hook


@pytest.mark.parametrize("newer", HOOKS)
@pytest.mark.parametrize("name", NAMES)
def test_an_older_patch_still_works_after_leaving_below_a_newer_one(name: str, newer: Any) -> None:
    pipe, expected = WAN.build(), accelerated(name)
    old = [add_diffusers(module) for module in tapped(pipe)]
    with keystep.accelerate(pipe, METHODS[name]):
        new = [newer(module) for module in tapped(pipe)]
        assert torch.equal(WAN.sample(pipe), expected)
    counts = [hook.num_calls for hook in (*old, *new)]
    assert torch.equal(WAN.sample(pipe), plain(WAN))
    assert [hook.num_calls for hook in (*old, *new)] == [count + 32 for count in counts]


# ------------------------------------------------------------------ copies


@pytest.mark.parametrize("inner", NAMES)
@pytest.mark.parametrize("name", NAMES)
def test_a_copy_made_inside_is_a_transformer_of_its_own(name: str, inner: str) -> None:
    """Plain at first, then accelerated with this method or another; nothing of the first pipeline in it."""
    pipe, expected = WAN.build(), {each: accelerated(each) for each in NAMES}
    with keystep.accelerate(pipe, METHODS[name]) as session:
        twin = copy.deepcopy(pipe.transformer)
        other = quiet(WanPipeline(None, None, None, FlowMatchEulerDiscreteScheduler(shift=3.0), twin))
        assert torch.equal(WAN.sample(other), plain(WAN))
        assert not session.traces, "the copy is not the session's"
        assert taps_of(twin), "copied with it"
        assert all(tap.value is None for tap in taps_of(twin))
        before = snapshot(other)
        with keystep.accelerate(other, METHODS[inner]):
            assert torch.equal(WAN.sample(other), expected[inner])
            assert torch.equal(WAN.sample(pipe), expected[name])
        WAN.sample(other)
        assert differences(before, snapshot(other)) == []
    assert torch.equal(WAN.sample(pipe), plain(WAN))
    modules = set(twin.modules())
    assert all(tap.module in modules for tap in taps_of(twin))
    for parameter in twin.parameters():
        parameter.data.zero_()
    assert torch.equal(WAN.sample(pipe), plain(WAN))
    assert not torch.equal(WAN.sample(other), plain(WAN)), "its taps call its own modules"


# ------------------------------------------------------------------ hooks removed while enabled


TIMED = Policy((Rule(Span(), Accumulate(1.0, RelativeChange(TimeEmbedding(), since="previous")), Hold()),))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (METHODS["fastercache"], "blocks.0.attn1"),
        (METHODS["adacache"], "blocks.1.norm2"),
        (METHODS["teacache"], "blocks.0.attn1"),
        (TIMED, "condition_embedder"),
    ],
    ids=("show output", "show input", "peek", "time"),
)
def test_hooks_removed_while_enabled_are_an_error_that_names_the_module(method: Any, path: str) -> None:
    pipe = WAN.build()
    for module in pipe.transformer.modules():
        add_accelerate(module)
    keystep.enable(pipe, method)
    expected = WAN.sample(pipe)
    remove_hook_from_module(pipe.transformer, recurse=True)
    with pytest.raises(RuntimeError, match=rf"^{path}[a-z_.]*: its hooks were removed.*again afterwards"):
        WAN.sample(pipe)
    keystep.enable(pipe, method)
    assert torch.equal(WAN.sample(pipe), expected)
    keystep.disable(pipe)
    assert torch.equal(WAN.sample(pipe), plain(WAN))
