"""The whole output as a site: what a skip hands out, in numbers, and that nothing of the model runs."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch

import keystep
from keystep import Policy, Rule, Session
from keystep.how import Hold
from keystep.what import Output
from keystep.when import Every, Mask, PredictedChange
from tests.laws.instruments import may_warn
from tests.matrix import pipe_of
from tests.zoo import COGVIDEOX, LATTE, OPENSORA, WAN, Zoo

ZOOS = pytest.mark.parametrize("zoo", [LATTE, COGVIDEOX, WAN, OPENSORA], ids=lambda zoo: zoo.name)
TIMES = (900.0, 700.0, 500.0)


def call(zoo: Zoo, session: Session | None, x: torch.Tensor, time: float, text: torch.Tensor) -> torch.Tensor:
    """One evaluation of the bare transformer with guidance in the layout of its pipeline; all rows."""
    pipe = pipe_of(zoo)
    parts = [(x, text)] if zoo.layouts == ("batched",) else list(zip(x.chunk(2), text.chunk(2), strict=True))
    rows = [pipe.transformer(**zoo.inputs(pipe, x, time, text))[0] for x, text in parts]
    if session is not None:
        session.step()
    return torch.cat(rows)


def inputs(zoo: Zoo) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Latents of three evaluations and the texts: two branches of two samples each."""
    generator = torch.Generator().manual_seed(3)
    latents = [torch.randn(2, *zoo.latent, generator=generator).repeat(2, 1, 1, 1, 1) for _ in TIMES]
    return latents, torch.cat([zoo.texts(2, generator)["prompt_embeds"] for _ in range(2)])


@ZOOS
@pytest.mark.parametrize("base", ["zero", "latent"])
@torch.no_grad()
def test_what_a_skip_hands_out(zoo: Zoo, base: Literal["zero", "latent"]) -> None:
    latents, text = inputs(zoo)
    plain = [call(zoo, None, x, time, text) for x, time in zip(latents, TIMES, strict=True)]
    pipe, calls = pipe_of(zoo), []
    handle = pipe.transformer.register_forward_hook(lambda *_: calls.append(1))
    with keystep.accelerate(pipe.transformer, Policy((Rule(Output(base), Mask("CsC"), Hold()),))) as session:
        session.begin(3, guided=True)
        found = [call(zoo, session, x, time, text) for x, time in zip(latents, TIMES, strict=True)]
    handle.remove()
    expected = plain[0]
    if base == "latent":
        # as many channels as the output has: Latte and Open-Sora predict a variance too, which has no latent
        step, axis = latents[1] - latents[0], 2 if zoo is COGVIDEOX else 1
        expected = plain[0].clone()
        expected.narrow(axis, 0, step.shape[axis]).add_(step)
    assert torch.equal(found[0], plain[0]) and torch.equal(found[2], plain[2])
    torch.testing.assert_close(found[1], expected, rtol=1e-5, atol=1e-5)
    assert len(calls) == (4 if zoo is WAN else 2), "the skipped one called nothing"


@ZOOS
@torch.no_grad()
def test_what_was_measured_outlives_its_tensors(zoo: Zoo) -> None:
    """A sampler may update its latent, and what the model returned, in place."""
    latents, text = inputs(zoo)

    def signals(is_in_place: bool) -> list[dict[str, float]]:
        pipe, x = pipe_of(zoo), latents[0].clone()
        rule = Rule(Output("latent"), PredictedChange(0.0), Hold())
        with keystep.accelerate(pipe.transformer, Policy((rule,))) as session, may_warn():
            session.begin(3, guided=True)
            for later, time in zip(latents, TIMES, strict=True):
                x = x.copy_(later) if is_in_place else later
                output: Any = call(zoo, session, x, time, text)
                if is_in_place:
                    output.zero_()
        assert session.trace is not None
        return [row.signals for row in session.trace.rows]

    assert signals(is_in_place=True) == signals(is_in_place=False)


def test_no_output_is_kept_alive_for_its_form() -> None:
    """Of a computed output only what an output looks like is remembered, not its content."""
    pipe = pipe_of(WAN)
    held = []

    def look(pipe: Any, step: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
        run = session.run
        held.extend(part.untyped_storage().nbytes() for part in (run.form if run else ()))
        return values

    with keystep.accelerate(pipe, Policy((Rule(Output(), Every(2), Hold()),))) as session:
        WAN.sample(pipe, call={"callback_on_step_end": look})
    assert held and set(held) == {0}
