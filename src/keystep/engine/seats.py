"""Seats: what sits in front of a module while a policy is attached.

`ModelSeat`, `BlockSeat` and `ExitSeat` take the place of the module's call, outside anything `torch.compile`
may have made of it. What has to happen inside a block is left to taps (`tap.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch

from keystep.engine.agreement import Agreement, agreement_of
from keystep.engine.call import Call
from keystep.engine.outputs import samples_of, with_samples
from keystep.engine.prober import Prober
from keystep.engine.rebuilt import Rebuilt
from keystep.engine.run import Run
from keystep.engine.tap import Peeked, Tap
from keystep.engine.untouched import Untouched
from keystep.engine.whole import WholeOutput
from keystep.what import LEAD, AttentionResidual, BlockProbe, Branch, Output, Part
from keystep.what.branch import check_rows, rows_of, select_branches

if TYPE_CHECKING:
    from keystep.engine.guided import GuidedOutput
    from keystep.models.spec import ModelSpec


class Host(Protocol):
    """What a seat needs of its session.

    Attributes:
        call: the model call under way, None between calls.
        guided: the guided output of the generation under way, where the policy is about that.
        graph_budget: makes the context in which the model runs.
    """

    call: Call | None
    guided: GuidedOutput | None
    graph_budget: Callable[[], AbstractContextManager[Any]]

    def run_for_call(self, arguments: Mapping[str, Any]) -> Run | None:
        """The run that a call of the model belongs to; None = compute plainly."""
        ...

    def abort(self) -> None:
        """Forget the generation under way."""
        ...


class ModelSeat:
    """In front of a transformer: opens calls, drops rows that are not needed, fills in skipped branches.

    Attributes:
        num_positions: places in the stack of blocks at which a span may begin or end.
        time_tap: on the module that embeds the timestep, if a rule measures it.
    """

    def __init__(self, session: Host, name: str, module: torch.nn.Module, spec: ModelSpec) -> None:
        self.session = session
        self.name = name
        self.spec = spec
        self.module = module
        self.signature = inspect.signature(module.forward)
        self.num_positions = 0
        self.time_tap: Tap | None = None
        self.call_next: Callable[..., Any] = module._call_impl

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate the model, or what the plan leaves of it."""
        bound = self.signature.bind_partial(*args, **kwargs)
        run = self.session.run_for_call(bound.arguments)
        if run is None:
            return self.call_next(*args, **kwargs)
        try:
            return self._evaluate(run, bound)
        except BaseException:
            self.session.abort()
            raise

    def _evaluate(self, run: Run, bound: inspect.BoundArguments) -> Any:
        branches = run.open_call(self.name, bound.arguments.get(self.spec.condition))
        if not branches:
            return self.call_next(*bound.args, **bound.kwargs)
        split = None if (agreement := agreement_of(self.module)) is None else agreement.split
        if split is None:
            return self._evaluate_branches(run, bound, branches, agreement)
        compute = partial(self._evaluate_branches, run, bound, agreement=agreement)
        return split.share(branches, bound.arguments, compute)

    def _evaluate_branches(
        self,
        run: Run,
        bound: inspect.BoundArguments,
        branches: tuple[str, ...],
        agreement: Agreement | None,
    ) -> Any:
        """The output of the branches in the rows of the arguments."""
        assert run.plan is not None
        if agreement is not None:
            agreement.check(run.plan)
        active: tuple[str, ...] = tuple(branch for branch in branches if branch in run.plan.active)
        latent = bound.arguments[self.spec.rows[0]]
        check_rows(self.spec.rows[0], latent.shape[0], branches)
        run.check_shape((latent.shape[0] // len(branches), *latent.shape[1:]))
        sites = self.spec.output_sites(self.name, bound.arguments)
        rule = run.rule_on(Branch)
        rebuilt = rule and Rebuilt(run, rule, tuple(sites), self.spec, bound.arguments)
        if not active:
            assert rebuilt, "separate guidance; the conditional call came first"
            samples = rebuilt.predict(samples_of(run.lead_output, len(sites)))
            return with_samples(run.lead_output, samples)
        if active != branches:
            bound.arguments.update(select_branches(bound.arguments, self.spec.rows, branches, active))
        latent = bound.arguments[self.spec.rows[0]]
        num_frames = self.spec.count_frames(self.module, bound.arguments)
        prober = Prober(run, active, latent.shape[0] // len(active), num_frames, agreement)
        output = self._run_or_skip(run, prober, bound, sites)
        return self._complete(rebuilt, output, branches, active, len(sites)) if rebuilt else output

    def _run_or_skip(
        self, run: Run, prober: Prober, bound: inspect.BoundArguments, sites: Mapping[str, str]
    ) -> Any:
        """The model's output, or where a rule skips the whole of it, a prediction."""
        rule = run.rule_on(Output)
        if rule is None:
            return self._run_blocks(prober, bound)
        wholes = [
            WholeOutput(run, rule, site, bound.arguments[name], self.spec.channels(index), prober)
            for index, (site, name) in enumerate(sites.items())
        ]
        if wholes[0].decide():
            return with_samples(run.form, [whole.predict() for whole in wholes])
        output = self._run_blocks(prober, bound)
        samples = samples_of(output, len(sites))
        run.form = with_samples(output, [sample.new_empty(0) for sample in samples])
        for whole, sample in zip(wholes, samples, strict=True):
            whole.keep(sample)
        wholes[0].measure(samples[0])
        return output

    def _run_blocks(self, prober: Prober, bound: inspect.BoundArguments) -> Any:
        has_exit = bool(self.spec.exit)
        frames = partial(self.spec.latent_frames, self.module, bound.arguments)
        self.session.call = Call(prober, self.num_positions, self.time_tap, has_exit, frames)
        try:
            with self.session.graph_budget():
                return self.call_next(*bound.args, **bound.kwargs)
        finally:
            self.session.call = None
            if self.time_tap is not None:
                self.time_tap.reset()

    def _complete(
        self,
        rebuilt: Rebuilt,
        output: Any,
        branches: tuple[str, ...],
        active: tuple[str, ...],
        num_samples: int,
    ) -> Any:
        """Store the difference between the branches, or fill in the rows of a skipped one."""
        run, samples = rebuilt.run, samples_of(output, num_samples)
        if LEAD in active:
            # between two calls the pipeline may write into what it was given
            is_alone = len(active) == 1
            run.lead_output = with_samples(output, [s.clone() for s in samples]) if is_alone else output
            leads = [rows_of(sample, LEAD, active) for sample in samples]
        else:
            leads = list(samples_of(run.lead_output, num_samples))
        if rebuilt.branch in active:
            rebuilt.keep([rows_of(sample, rebuilt.branch, active) for sample in samples], leads)
        if active == branches:
            return output
        parts = {LEAD: leads, rebuilt.branch: rebuilt.predict(leads)}
        rows = zip(*(parts[branch] for branch in branches), strict=True)
        return with_samples(output, [torch.cat(each) for each in rows])


class BlockSeat:
    """In front of a transformer block: passes its streams through inside a skipped span, else sets its taps.

    Attributes:
        position: of the block in the stack, if a span may begin or end in front of it.
        is_last: whether a span to the end of the stack is left behind this block.
        parts: (module name, site, tap) of the modules inside that rules may skip.
        probes: where this block is measured.
        after_attention: the tap behind the attention residual, if this block is measured.
        attention_input: the tap in front of the attention, if a rule measures what it is given.
    """

    def __init__(self, session: Host, module: torch.nn.Module, spec: ModelSpec, position: int | None) -> None:
        self.session = session
        self.module = module
        self.names = spec.streams
        self.position = position
        self.is_last = False
        self.parts: list[tuple[str, Part, Tap]] = []
        self.probes: list[BlockProbe] = []
        self.after_attention: Tap | None = None
        self.attention_input: Tap | None = None
        arguments = list(inspect.signature(module.forward).parameters)
        self.indices = [arguments.index(name) for name in spec.streams]
        self.call_next: Callable[..., Any] = module._call_impl

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the block, or hand its streams on."""
        call = self.session.call
        if call is None:
            try:
                return self.call_next(*args, **kwargs)
            finally:
                self._reset_taps()
        streams = tuple(
            args[index] if index < len(args) else kwargs[name]
            for name, index in zip(self.names, self.indices, strict=True)
        )
        if self.position is not None:
            given = streams
            streams = call.pass_position(self.position, given, partial(self._peek, args, kwargs))
            if streams is not given:
                args, kwargs = self._replace_streams(args, kwargs, streams)
        if call.is_skipping:
            output: Any = streams[0] if len(streams) == 1 else streams
        else:
            output = self._compute(call, streams[0], args, kwargs)
        return self._leave(call, output) if self.is_last else output

    def _leave(self, call: Call, output: Any) -> Any:
        """What the last block gives on: the end of a span to the end of the stack."""
        streams = call.leave_span(output if isinstance(output, tuple) else (output,))
        return streams if isinstance(output, tuple) else streams[0]

    def _compute(self, call: Call, hidden: torch.Tensor, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Run the block, the parts of it that the plan skips filled in."""
        before = Untouched((hidden,))
        try:
            for name, site, tap in self.parts:
                call.prepare_part(name, site, tap)
            output = self.call_next(*args, **kwargs)
            for name, site, tap in self.parts:
                call.collect_part(name, site, tap)
            if self.after_attention is not None:
                before.check(type(self.module).__name__, "its input")
                self._measure(call, hidden, self.after_attention.take(), output)
        finally:
            self._reset_taps()
        return output

    def _replace_streams(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], streams: tuple[torch.Tensor, ...]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        positional, named = list(args), dict(kwargs)
        for name, index, stream in zip(self.names, self.indices, streams, strict=True):
            if index < len(positional):
                positional[index] = stream
            else:
                named[name] = stream
        return tuple(positional), named

    def _peek(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """What the block's attention is given; the block is left there."""
        assert self.attention_input is not None, "tapped when a rule measures it"
        self.attention_input.should_skip = True
        try:
            self.module._call_impl(*args, **kwargs)  # not compiled: an exception leaves it
        except Peeked as seen:
            return seen.value
        finally:
            self.attention_input.reset()
        self.attention_input.check_in_place()
        raise RuntimeError(f"{type(self.module).__name__}: ran without its attention, which a rule measures")

    def _measure(self, call: Call, before: torch.Tensor, after_attention: torch.Tensor, output: Any) -> None:
        last = output[0] if isinstance(output, tuple) else output
        num_seen = after_attention.shape[1]  # Helios splits tokens of earlier frames, in front, off before it
        before, last = before[:, -num_seen:], last[:, -num_seen:]
        for probe in self.probes:
            if isinstance(probe, AttentionResidual):
                call.measure_block(probe, after_attention, before)
            else:
                call.measure_block(probe, last, after_attention)

    def _reset_taps(self) -> None:
        for _, _, tap in self.parts:
            tap.reset()
        if self.after_attention is not None:
            self.after_attention.reset()


class ExitSeat:
    """In front of the module after the last block: replaces the hidden state of a skipped span."""

    def __init__(self, session: Host, module: torch.nn.Module) -> None:
        self.session = session
        self.call_next: Callable[..., Any] = module._call_impl

    def __call__(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Leave the span, then run the module."""
        call = self.session.call
        return self.call_next(hidden if call is None else call.leave_span((hidden,))[0], *args, **kwargs)
