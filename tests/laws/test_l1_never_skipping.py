"""L1: a policy that never skips is bit-identical to no policy, and so is the pipeline after it is left."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import keystep
from keystep import KeystepWarning
from tests.laws.instruments import differences, snapshot
from tests.matrix import (
    METHODS,
    NEVER,
    accelerated_drive,
    drive,
    methods_for,
    pipe_of,
    plain,
    scale_of,
    zoo_params,
)
from tests.zoo import ZOO, Zoo

STEPS = 8


@pytest.mark.parametrize("is_guided", [True, False], ids=["guided", "unguided"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("zoo", zoo_params())
def test_never_skipping_is_bit_identical(zoo: Zoo, batch: int, is_guided: bool) -> None:
    pipe, before = pipe_of(zoo), plain(zoo, batch, is_guided, STEPS)
    arguments = {"batch": batch, "steps": STEPS, "scale": scale_of(is_guided)}
    with keystep.accelerate(pipe, NEVER["always"]) as session:
        latents = zoo.sample(pipe, **arguments)
    assert torch.equal(latents, before)
    assert session.trace.is_complete and len(session.trace.rows) == STEPS
    assert session.trace.peak_cache_bytes == 0, "nothing will be reused, so nothing may be kept"
    assert torch.equal(zoo.sample(pipe, **arguments), before), "after leaving"


@pytest.mark.parametrize("name", ["every1", "codebook1"])
@pytest.mark.parametrize("zoo", zoo_params())
def test_policies_that_could_skip_but_do_not(zoo: Zoo, name: str) -> None:
    pipe = pipe_of(zoo)
    with (
        keystep.accelerate(pipe, NEVER[name]) as session,
        pytest.warns(KeystepWarning, match="nothing was skipped"),
    ):
        latents = zoo.sample(pipe, steps=STEPS)
    assert torch.equal(latents, plain(zoo, steps=STEPS))
    assert session.trace.key_steps == list(range(1, STEPS + 1))


@pytest.mark.parametrize("layout", ["batched:cond,uncond", "separate:uncond,cond"])
@pytest.mark.parametrize("zoo", [pytest.param(ZOO[i], id=ZOO[i].name) for i in (0, 1, 4)])
def test_bare_transformer_in_other_layouts(zoo: Zoo, layout: str) -> None:
    rules = NEVER["always"].rules[1:]  # CFG-Cache refuses the unconditional call first
    latents, _ = accelerated_drive(zoo, keystep.Policy(rules), layout, batch=2, steps=4)
    assert torch.equal(latents, drive(zoo, pipe_of(zoo), layout, batch=2, steps=4))


@pytest.mark.parametrize("zoo", zoo_params())
def test_skipping_changes_the_result_and_leaving_restores_everything(zoo: Zoo) -> None:
    """The other half of the law: the instruments can see a difference, and nothing stays attached."""
    pipe = zoo.build()
    zoo.sample(pipe, steps=STEPS)
    before = snapshot(pipe)
    for name in methods_for(zoo):
        with keystep.accelerate(pipe, METHODS[name]):
            assert differences(before, snapshot(pipe)), "something must be attached inside"
            latents = zoo.sample(pipe)
            assert not torch.equal(latents, plain(zoo))
        zoo.sample(pipe, steps=STEPS)
        assert differences(before, snapshot(pipe)) == []
    assert torch.equal(zoo.sample(pipe), plain(zoo))


def test_enable_and_disable_restore_too() -> None:
    zoo = ZOO[0]
    pipe = zoo.build()
    zoo.sample(pipe, steps=2)
    before: dict[str, Any] = snapshot(pipe)
    keystep.enable(pipe, "fastercache")
    keystep.disable(pipe)
    keystep.disable(pipe)
    assert differences(before, snapshot(pipe)) == []
