"""What keystep keeps without a copy, and others write into: hooks get a copy, blocks are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import keystep
from keystep import Policy, Rule
from keystep.how import Constant, Hold, Linear
from keystep.methods import FORA, FasterCache, FBCache, TaylorSeer
from keystep.what import Attention, Branch, Output, Span
from keystep.when import Every
from tests.laws.instruments import first_blocks
from tests.zoo import LATTE, WAN, Zoo

Hook = Callable[[nn.Module, Any, Any], Any]
METHODS = {"fora": FORA(3), "fastercache": FasterCache(), "taylorseer": TaylorSeer(3)}


def in_place(module: nn.Module, args: Any, output: Any) -> None:
    output.mul_(0.5).add_(0.1)


def in_place_of_it(module: nn.Module, args: Any, output: Any) -> Any:
    return output * 0.5 + 0.1


def sample_hooked(zoo: Zoo, method: Any, hook: Hook) -> torch.Tensor:
    pipe = zoo.build()
    for block in first_blocks(pipe.transformer):
        block.attn1.register_forward_hook(hook)
    with keystep.accelerate(pipe, method):
        return zoo.sample(pipe)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("zoo", [LATTE, WAN], ids=lambda zoo: zoo.name)
def test_a_hook_may_write_into_an_attention_output(zoo: Zoo, name: str) -> None:
    found = sample_hooked(zoo, METHODS[name], in_place)
    assert torch.equal(found, sample_hooked(zoo, METHODS[name], in_place_of_it))
    assert not torch.equal(found, sample_hooked(zoo, METHODS[name], lambda *_: None))


class Gated(nn.Module):
    """An attention module in a block that writes into what it returns, as `x.mul_(gate)` does."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        attention = self.block.attn1
        output = attention(hidden_states, None, None, args[2])
        return hidden_states + output.mul_(0.5)


class InPlace(Gated):
    """A block that adds to its input in place."""

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        output = self.block.attn1(hidden_states, None, None, args[2])
        hidden_states += output
        return hidden_states


def replace_forward(pipe: Any, kind: type[Gated]) -> Any:
    for block in first_blocks(pipe.transformer):
        changed = kind(block)
        block.forward = lambda hidden_states, encoder_hidden_states, temb, rotary_emb, changed=changed: (
            changed(hidden_states, encoder_hidden_states, temb, rotary_emb)
        )
    return pipe


@pytest.mark.parametrize(
    ("kind", "method", "words"),
    [
        (
            Gated,
            Policy((Rule(Attention(), Every(3, phase=1), Hold()),)),
            r"blocks\.0\.attn1: its output is written into in place",
        ),
        (
            Gated,
            Policy((Rule(Attention(), Every(3), Linear(Constant(0.5))),)),
            r"attn1: its output is written into",
        ),
        (InPlace, Policy((Rule(Span(), Every(2), Hold()),)), "a block of transformer: its input is written"),
        (InPlace, FBCache(9.0), "a block of transformer: its input is written"),
        (InPlace, keystep.AdaCache({9.0: 3}, native=16), "its input is written"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_block_that_writes_in_place_is_named(kind: type[Gated], method: Any, words: str) -> None:
    pipe = replace_forward(WAN.build(), kind)
    plain = WAN.sample(pipe)
    with keystep.accelerate(pipe, method), pytest.raises(RuntimeError, match=words):
        WAN.sample(pipe)
    assert torch.equal(WAN.sample(pipe), plain)


def test_a_hook_on_a_norm_sees_it_at_work() -> None:
    pipe, means = WAN.build(), []
    norm = pipe.transformer.blocks[0].norm1
    norm.register_forward_hook(lambda module, args, output: means.append(output.mean(-1).abs().max()))
    with keystep.accelerate(pipe, FORA(3)):
        WAN.sample(pipe, steps=4)
    assert len(means) == 8
    assert max(means) < 1e-5


def run_loop(policy: Policy, guided: bool, is_in_place: bool) -> list[torch.Tensor]:
    """Outputs of the bare transformer in a loop that goes on with what it was given, changed."""
    transformer, generator = WAN.build().transformer, torch.Generator().manual_seed(0)
    latent = torch.randn(1, *WAN.latent, generator=generator)
    texts = [torch.randn(1, 7, 20, generator=generator) for _ in range(1 + guided)]
    outputs = []
    with torch.no_grad(), keystep.accelerate(transformer, policy) as session:
        session.begin(8, guided=guided)
        for k in range(8):
            for text in texts:
                output = transformer(latent, torch.tensor([1000.0 - 100 * k]), text, return_dict=False)[0]
                outputs.append(output.clone())
                changed = output.mul_(0.5).add_(1) if is_in_place else output * 0.5 + 1
            latent = latent - 0.05 * changed
            session.step()
    return outputs


@pytest.mark.parametrize(("site", "guided"), [(Output(), False), (Output(), True), (Branch(), True)])
def test_a_loop_may_write_into_what_the_model_returned(site: Any, guided: bool) -> None:
    policy = Policy((Rule(site, Every(4, phase=1), Hold()),))
    pairs = zip(run_loop(policy, guided, True), run_loop(policy, guided, False), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
