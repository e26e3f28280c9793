"""L2: guidance in one batch, in either order, or in separate calls: same decisions, same video."""

from __future__ import annotations

import pytest
import torch

import keystep
from keystep import Policy, Rule
from keystep.how import FrequencyBands, Hold, Linear
from keystep.what import Attention, Branch, PrefixResidual, Span
from keystep.when import Below, Every, RelativeChange
from tests.matrix import LAYOUTS, METHODS, accelerated_drive, decisions, pairs, pipe_of, scale_of
from tests.zoo import ZOO, Zoo

TOLERANCE = 2e-4  # random weights at an unstable sampler: float32 noise grows over the steps


def is_close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).norm() <= TOLERANCE * other.norm())


@pytest.mark.parametrize(("zoo", "name", "batch", "is_guided"), pairs())
def test_layouts_agree(zoo: Zoo, name: str, batch: int, is_guided: bool) -> None:
    runs = [
        accelerated_drive(zoo, METHODS[name], layout, batch=batch, is_guided=is_guided)
        for layout in (LAYOUTS if is_guided else LAYOUTS[1:])
    ]
    (latents, trace), *others = runs
    assert any(row.skipped for row in trace.rows), "the law says nothing about a run that skips nothing"
    for other_latents, other_trace in others:
        assert decisions(other_trace) == decisions(trace)
        assert [set(row.branches) for row in other_trace.rows] == [set(row.branches) for row in trace.rows]
        assert is_close(other_latents, latents)


CFG = Rule(Branch(), Every(3, start=4), FrequencyBands())
MIXTURES = {
    "branch+probe": Policy((CFG, Rule(Span(1), Below(2.0, RelativeChange(PrefixResidual())), Hold()))),
    "branch+span+attention": Policy(
        (
            CFG,
            Rule(Span(), Every(4, start=5), Hold(), max_age=3),
            Rule(Attention(), Every(2, start=3), Linear(), max_age=4),
        )
    ),
}


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("zoo", [pytest.param(ZOO[i], id=ZOO[i].name) for i in (0, 1, 4)])
def test_layouts_agree_for_probe_decisions_and_mixtures(zoo: Zoo, name: str) -> None:
    runs = [accelerated_drive(zoo, MIXTURES[name], layout, batch=2) for layout in LAYOUTS]
    (latents, trace), *others = runs
    assert all("s" in letters for letters in decisions(trace).values())
    for other_latents, other_trace in others:
        assert decisions(other_trace) == decisions(trace)
        assert is_close(other_latents, latents)


@pytest.mark.parametrize("name", METHODS)
def test_bare_transformer_agrees_with_the_pipeline(name: str) -> None:
    """The same session code behind a pipeline and behind begin() and step(): same decisions."""
    zoo = ZOO[4]
    pipe = pipe_of(zoo)
    with keystep.accelerate(pipe, METHODS[name]) as session:
        zoo.sample(pipe, scale=scale_of(True))
    _, trace = accelerated_drive(zoo, METHODS[name], "separate:cond,uncond")
    controllers = [rule.when for rule in METHODS[name].policy("wan", trace.num_evaluations).rules]
    # another sampler, other latents and timesteps: only schedules are comparable
    if not any(when.signals or when.needs_time for when in controllers):
        assert decisions(session.trace) == decisions(trace)
    assert session.trace.num_evaluations == trace.num_evaluations
    assert [len(row.branches) for row in session.trace.rows][:2] == [2, 2]


def test_a_batch_mate_that_stands_still_does_not_hurt_a_restless_video() -> None:
    """over="lead" takes the most restless sample of a batch."""
    zoo = ZOO[4]
    method = keystep.AdaCache({0.15: 4, 5.0: 2}, native=16)
    _, alone = accelerated_drive(zoo, method, LAYOUTS[0], batch=1)
    _, pair = accelerated_drive(zoo, method, LAYOUTS[0], batch=2)
    assert len(pair.key_steps) >= len(alone.key_steps) - 1
