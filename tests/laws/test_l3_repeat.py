"""L3: a generation does not know what was generated before it."""

from __future__ import annotations

import pytest
import torch

import keystep
from tests.laws.instruments import may_warn
from tests.matrix import METHODS, decisions, pairs, pipe_of, scale_of
from tests.zoo import Zoo


def other_shape(zoo: Zoo) -> dict[str, object]:
    """Call arguments for a wider video."""
    arguments = zoo.arguments(seed=5, steps=12)
    shape = (*zoo.latent[:-1], zoo.latent[-1] + 2)
    arguments["latents"] = torch.randn(1, *shape, generator=torch.Generator().manual_seed(5))
    return arguments | {"width": zoo.size["width"] + 16}


@pytest.mark.parametrize(("zoo", "name", "batch", "is_guided"), pairs())
def test_second_generation_equals_the_first(zoo: Zoo, name: str, batch: int, is_guided: bool) -> None:
    pipe, arguments = pipe_of(zoo), {"batch": batch, "scale": scale_of(is_guided)}
    with keystep.accelerate(pipe, METHODS[name]) as session, may_warn():
        first = zoo.sample(pipe, **arguments)
        kept = decisions(session.trace)
        assert torch.equal(zoo.sample(pipe, **arguments), first), "at once"
        zoo.sample(pipe, seed=7, batch=3 - batch, steps=9)
        zoo.sample(pipe, seed=8, steps=5, scale=scale_of(not is_guided))
        if zoo.name in ("latte", "wan"):
            with torch.no_grad():
                pipe(**other_shape(zoo))
        assert torch.equal(zoo.sample(pipe, **arguments), first), "after others"
        assert decisions(session.trace) == kept
    with keystep.accelerate(pipe, METHODS[name]):
        assert torch.equal(zoo.sample(pipe, **arguments), first), "in a context of its own"
