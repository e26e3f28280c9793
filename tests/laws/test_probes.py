"""What is measured before a site is what is there: compared with plain hooks on a plain model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import keystep
from keystep import Policy, Rule, Trace
from keystep.how import Hold, Linear, Measured, Predictor
from keystep.what import (
    AttentionInput,
    Output,
    PrefixResidual,
    Site,
    Span,
    SpanInput,
    StackInput,
    TimeEmbedding,
)
from keystep.when import Accumulate, Below, Controller, PredictedChange, Progress, RelativeChange
from tests.laws.instruments import may_warn
from tests.matrix import pipe_of
from tests.zoo import COGVIDEOX, LATTE, STEPS, WAN, Zoo

ZOOS = pytest.mark.parametrize("zoo", [LATTE, COGVIDEOX, WAN], ids=lambda zoo: zoo.name)
BATCH = 2
HOLD = Hold()


class Record:
    """What a module is given or gives, evaluation by evaluation, for the conditional rows alone."""

    def __init__(
        self, zoo: Zoo, module: torch.nn.Module, look: Callable[[Any, Any, Any], torch.Tensor]
    ) -> None:
        self.values: list[torch.Tensor] = []
        self.is_batched = zoo.layouts == ("batched",)
        self.count = 0
        self.look = look
        self.handle = module.register_forward_hook(self._hook, with_kwargs=True)

    def _hook(self, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        self.count += 1
        if self.is_batched:
            self.values.append(self.look(args, kwargs, output).chunk(2)[1].clone())
        elif self.count % 2:  # the conditional call comes first
            self.values.append(self.look(args, kwargs, output).clone())


def first_input(args: Any, kwargs: Any, output: Any) -> torch.Tensor:
    return args[0] if args else next(iter(kwargs.values()))


def first_output(args: Any, kwargs: Any, output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def change(new: torch.Tensor, old: torch.Tensor) -> float:
    """Relative L1 change of the most restless sample."""
    return max(
        float((n - o).abs().sum() / o.abs().sum())
        for n, o in zip(new.chunk(BATCH), old.chunk(BATCH), strict=True)
    )


def mean_change(new: torch.Tensor, old: torch.Tensor) -> float:
    return max(float(d.abs().mean()) for d in (new - old).chunk(BATCH))


def recorded(zoo: Zoo, *wanted: tuple[torch.nn.Module, Any]) -> list[list[torch.Tensor]]:
    """Values seen by hooks in a plain generation."""
    records = [Record(zoo, module, look) for module, look in wanted]
    try:
        zoo.sample(pipe_of(zoo), batch=BATCH)
    finally:
        for record in records:
            record.handle.remove()
    return [record.values for record in records]


def measured(zoo: Zoo, site: Site, when: Controller, how: Predictor = HOLD) -> Trace:
    with keystep.accelerate(pipe_of(zoo), Policy((Rule(site, when, how),))) as session, may_warn():
        zoo.sample(pipe_of(zoo), batch=BATCH)
    assert session.trace is not None
    return session.trace


def blocks_of(zoo: Zoo) -> torch.nn.ModuleList:
    transformer = pipe_of(zoo).transformer
    return transformer.blocks if zoo is WAN else transformer.transformer_blocks


@ZOOS
@pytest.mark.parametrize("start", [0, 1])
def test_attention_input(zoo: Zoo, start: int) -> None:
    """Below a threshold of 0 nothing is skipped, so both see the plain trajectory."""
    (values,) = recorded(zoo, (blocks_of(zoo)[start].attn1, first_input))
    signal = RelativeChange(AttentionInput(), since="previous")
    trace = measured(zoo, Span(start), Accumulate(0.0, signal))
    assert not any(row.skipped for row in trace.rows) and "distance" not in trace.rows[0].signals
    for k in range(1, STEPS):
        assert trace.rows[k].signals["distance"] == pytest.approx(change(values[k], values[k - 1]), rel=1e-4)


@pytest.mark.parametrize("zoo", [COGVIDEOX, WAN], ids=lambda zoo: zoo.name)
def test_time_embedding(zoo: Zoo) -> None:
    transformer = pipe_of(zoo).transformer
    module = transformer.condition_embedder.time_embedder if zoo is WAN else transformer.time_embedding
    (values,) = recorded(zoo, (module, first_output))
    trace = measured(zoo, Span(), Accumulate(0.0, RelativeChange(TimeEmbedding(), since="previous")))
    for k in range(1, STEPS):
        assert trace.rows[k].signals["distance"] == pytest.approx(change(values[k], values[k - 1]), rel=1e-4)


@ZOOS
@pytest.mark.parametrize("stop", [1, 2])
def test_prefix_residual_against_the_last_computed(zoo: Zoo, stop: int) -> None:
    blocks = blocks_of(zoo)
    first, border = recorded(zoo, (blocks[0], first_input), (blocks[stop], first_input))
    if zoo is LATTE:  # its spatial blocks have frames in the rows, where conditional rows come last, too
        assert first[0].shape == border[0].shape
    residuals = [after - before for before, after in zip(first, border, strict=True)]
    trace = measured(zoo, Span(stop), Below(0.0, RelativeChange(PrefixResidual(stop))))
    for k in range(1, STEPS):
        expected = change(residuals[k], residuals[k - 1])
        assert trace.rows[k].signals["distance"] == pytest.approx(expected, rel=1e-3)


@ZOOS
def test_inputs_of_stack_and_span_and_progress(zoo: Zoo) -> None:
    """What DiCache looks at: two hidden states, and how far the first blocks' residual has gone on."""
    blocks = blocks_of(zoo)
    first, border = recorded(zoo, (blocks[0], first_input), (blocks[1], first_input))
    when = Accumulate(
        0.0,
        RelativeChange(SpanInput(), since="previous"),
        minus=RelativeChange(StackInput(), since="previous", name="input"),
    )
    trace = measured(zoo, Span(1), when, Linear(Measured(Progress(PrefixResidual(1)))))
    residuals = [after - before for before, after in zip(first, border, strict=True)]
    for k in range(1, STEPS):
        signals = trace.rows[k].signals
        assert signals["distance"] == pytest.approx(change(border[k], border[k - 1]), rel=1e-3)
        assert signals["input"] == pytest.approx(change(first[k], first[k - 1]), rel=1e-3)
        assert ("progress" in signals) == (k > 1)
        if k > 1:
            new, newer, older = residuals[k], residuals[k - 1], residuals[k - 2]
            parts = zip(*(x.chunk(BATCH) for x in (new, newer, older)), strict=True)
            expected = max(float((n - o).abs().sum() / (m - o).abs().sum()) for n, m, o in parts)
            assert signals["progress"] == pytest.approx(expected, rel=1e-3)


@ZOOS
def test_latent_and_prediction(zoo: Zoo) -> None:
    transformer = pipe_of(zoo).transformer
    latents, outputs = recorded(zoo, (transformer, first_input), (transformer, first_output))
    trace = measured(zoo, Output("latent"), PredictedChange(0.0))
    for k in range(STEPS):
        signals = trace.rows[k].signals
        assert signals["output size"] == pytest.approx(mean_change(outputs[k], 0 * outputs[k]), rel=1e-4)
        if k == 0:
            assert set(signals) == {"output size"}
            continue
        assert signals["latent step"] == pytest.approx(mean_change(latents[k], latents[k - 1]), rel=1e-4)
        assert signals["latent change"] == signals["latent step"], "every evaluation was computed"
        assert signals["output change"] == pytest.approx(mean_change(outputs[k], outputs[k - 1]), rel=1e-4)


def test_previous_and_computed_part_when_something_is_skipped() -> None:
    """Since the last computed evaluation the change is larger than since the one before, skips between."""

    class Third(PredictedChange):
        """Skips two of three, whatever is measured."""

        def plan(self, state: Any, evaluation: int) -> Any:
            return "compute" if evaluation < 4 or evaluation % 3 == 0 else "skip"

    trace = measured(WAN, Output(), Third(0.5))
    skipped = [row for row in trace.rows if row.skipped]
    assert [row.evaluation for row in skipped] == [4, 5, 7, 8, 10, 11, 13, 14, 16]
    for row in skipped:
        assert "output size" not in row.signals, "there is no output to measure"
        is_first = row.evaluation % 3 == 1
        step, since = row.signals["latent step"], row.signals["latent change"]
        assert since == step if is_first else since > 1.2 * step


def test_a_time_embedding_of_one_row_serves_all() -> None:
    """A timestep given once for all rows is embedded once."""
    pipe = pipe_of(COGVIDEOX)
    rule = Rule(Span(), Accumulate(0.0, RelativeChange(TimeEmbedding(), since="previous")), Hold())
    inputs = COGVIDEOX.inputs(pipe, torch.randn(4, *COGVIDEOX.latent), 0.0, torch.randn(4, 7, 20))
    with torch.no_grad(), keystep.accelerate(pipe.transformer, Policy((rule,))) as session, may_warn():
        session.begin(3, guided=True)
        for time in (900.0, 500.0, 100.0):
            pipe.transformer(**inputs | {"timestep": torch.tensor([time])})
            session.step()
    assert session.trace is not None
    assert all(row.signals["distance"] > 0 for row in session.trace.rows[1:])
