"""Guidance that is switched off in mid-run, and on again: the branch that goes on is skipped as before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import keystep
from keystep import AdaCache, FasterCache
from keystep.methods import FORA, TaylorSeer, TeaCache
from tests.matrix import NEVER
from tests.zoo import WAN

STEPS = 16
pytestmark = pytest.mark.filterwarnings("ignore::keystep.engine.session.KeystepWarning")
METHODS: dict[str, Any] = {
    "fora": FORA(3),
    "fora+cfg": FORA(3, cfg=True),
    "taylorseer": TaylorSeer(3),
    "teacache": TeaCache(3.0),
    "adacache": AdaCache({9.0: 4}, native=STEPS),
    "fastercache": FasterCache(),
}


def switch(off: int, on: int | None = None) -> Callable[..., Any]:
    """A callback after so many steps: guidance off, and on again."""

    def callback(pipe: Any, i: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        if i + 1 == off:
            pipe._guidance_scale = 0.0
        if i + 1 == on:
            pipe._guidance_scale = 4.0
        return {}

    return callback


def sample(pipe: Any, callback: Callable[..., Any] | None = None) -> torch.Tensor:
    return WAN.sample(pipe, steps=STEPS, call={"callback_on_step_end": callback} if callback else {})


@pytest.mark.parametrize("name", METHODS)
def test_skipping_goes_on_with_the_other_branch(name: str) -> None:
    pipe = WAN.build()
    with keystep.accelerate(pipe, METHODS[name]) as session:
        sample(pipe)
        always = session.trace
        found = sample(pipe, switch(6))
        paused = session.trace
        again = sample(pipe, switch(6))
    assert always is not None and paused is not None
    assert torch.equal(found, again)
    assert len(paused.key_steps) <= len(always.key_steps) + 1, "one, to begin anew"
    assert not any("uncond" in step.reason for row in paused.rows[7:] for step in row.decisions.values())
    assert [row.branches for row in paused.rows[6:]] == [("cond",)] * 10
    assert "evaluation 7: the pipeline left out uncond" in paused.notes


@pytest.mark.parametrize("name", METHODS)
def test_a_branch_that_returns_is_skipped_again(name: str) -> None:
    pipe = WAN.build()
    with keystep.accelerate(pipe, METHODS[name]) as session:
        found = sample(pipe, switch(6, 10))
    assert session.trace is not None and session.trace.is_complete
    rows = session.trace.rows
    assert [row.branches for row in rows[6:11]] == [("cond",)] * 5, "at its return it is computed in full"
    assert any("uncond" in row.branches for row in rows[11:])
    assert torch.isfinite(found).all()


def test_nothing_from_before_a_pause_is_used() -> None:
    """Attention runs in evaluation 11 for the branch that returns, and in 12 for both, to be held again."""
    pipe, runs = WAN.build(), [0]
    pipe.transformer.blocks[1].attn1.to_q.register_forward_hook(lambda *_: runs.append(runs.pop() + 1))

    def callback(pipe: Any, i: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        runs.append(0)
        return switch(6, 10)(pipe, i, t, values)

    with keystep.accelerate(pipe, METHODS["fora"]):
        sample(pipe, callback)
    assert runs[:STEPS] == [2, 0, 0, 2, 0, 0, 1, 0, 0, 1, 1, 2, 2, 0, 0, 2]


def test_a_policy_that_never_skips_changes_nothing() -> None:
    pipe = WAN.build()
    plain = sample(pipe, switch(6, 10))
    for method in NEVER.values():
        with keystep.accelerate(pipe, method):
            assert torch.equal(sample(pipe, switch(6, 10)), plain)
