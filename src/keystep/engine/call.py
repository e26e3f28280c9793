"""One call of a transformer while a policy is attached: what its blocks do to the histories."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from keystep.engine.prober import Probed, Prober, is_whole
from keystep.engine.untouched import Untouched
from keystep.policy import Rule
from keystep.what import (
    AttentionInput,
    BlockProbe,
    Branch,
    FilteredLatent,
    PrefixResidual,
    Span,
    SpanInput,
    StackInput,
)
from keystep.what.branch import rows_of
from keystep.what.spectrum import filter_frames

if TYPE_CHECKING:
    from keystep.engine.tap import Tap
    from keystep.what import Part

Streams = tuple[Any, ...]  # the hidden state, and others such as the text; None where a model goes without


class Call:
    """The call under way.

    Args:
        prober: of the call; it knows the run and the branches in it.
        num_positions: places in the stack at which a span may begin or end.
        time_tap: on the module that embeds the timestep, where a rule measures it.
        has_exit: whether a module behind the last block sees the hidden state, and it alone; else the last
            block's output is where a span to the end of the stack is left.
        frames: gives the latent as frames, (rows, C, T, H, W).
    """

    def __init__(
        self,
        prober: Prober,
        num_positions: int,
        time_tap: Tap | None,
        has_exit: bool,
        frames: Callable[[], torch.Tensor],
    ) -> None:
        run, active = prober.run, prober.active
        self.run = run
        self.active = active
        self.is_skipping = False
        self.prober = prober
        self._num_positions = num_positions
        self._has_exit = has_exit
        self._span = run.rule_on(Span)
        self._start, self._end = self._borders()
        self._first: torch.Tensor | None = None  # input of block 0, where a probe needs it
        self._entry: Streams = ()  # streams at the begin of the span, while they are needed
        self._at_first, self._at_entry = Untouched(()), Untouched(())
        self.time_tap = time_tap
        self._frames = frames

    def _borders(self) -> tuple[int, int]:
        """Positions at which the span begins, and at which it has ended."""
        if self._span is None or not isinstance(self._span.what, Span):
            return 0, self._num_positions
        return self._span.what.start, self._num_positions - self._span.what.num_after

    # ---------------------------------------------------------------- span

    def pass_position(self, position: int, streams: Streams, peek: Callable[[], torch.Tensor]) -> Streams:
        """The stack arrives at a block; returns the streams with which it goes on.

        Args:
            position: of the block.
            streams: its inputs, the hidden state first.
            peek: runs the block up to its attention, and returns what that is given.
        """
        if position == 0:
            self._note_size(streams[0])
        if self._span is None:
            return streams
        if position == self._end:
            streams = self.leave_span(streams)
        if position == self._start:
            if self._span.when.asks:
                self._ask(self._span, streams[0], peek)
            self.is_skipping = self.run.step_of(self._span).action == "skip"
            if self.is_skipping or any(self.run.keeps(self._span, branch) for branch in self.active):
                is_seen_alone = self._has_exit and self._end == self._num_positions
                self._entry = streams[:1] if is_seen_alone else streams
                self._at_entry = Untouched(self._entry)
        return streams

    def _note_size(self, hidden: torch.Tensor) -> None:
        num_bytes = hidden.nbytes // len(self.active) * len(self.run.branches)
        self.run.trace.hidden_state_bytes = max(self.run.trace.hidden_state_bytes, num_bytes)
        if self._span is not None and self._span.when.asks:
            self._first, self._at_first = hidden, Untouched((hidden,))

    def _ask(self, span: Rule, hidden: torch.Tensor, peek: Callable[[], torch.Tensor]) -> None:
        """Measure what is known before the span; ask, where the plan left it open."""
        self._at_first.check(f"a block of {self.run.model}", "its input")
        first, self._first = self._first, None
        if self.prober.lead not in self.active:
            return
        probed: list[Probed] = []
        for probe in dict.fromkeys(probe for signal in span.signals for probe in signal.probes):
            before = None
            if isinstance(probe, PrefixResidual):
                value, before = hidden, first
            elif isinstance(probe, SpanInput):
                value = hidden
            elif isinstance(probe, StackInput):
                assert first is not None, "kept for a controller that asks"
                value = first
            elif isinstance(probe, AttentionInput):
                value = peek()
            elif isinstance(probe, FilteredLatent):
                value = filter_frames(self._frames(), self.run.noise, probe.power)
            else:
                assert self.time_tap is not None, "tapped when a rule measures it"
                value = self.time_tap.take()
                if value.shape[0] == 1:  # one timestep for all rows
                    value = value.expand(len(self.active) * self.prober.samples, *value.shape[1:])
            probed.extend(self.prober.begin(span, probe, value, before))
        self.prober.ask(span, probed)

    def leave_span(self, streams: Streams) -> Streams:
        """The streams behind the span: measured when computed, predicted when skipped."""
        entry, self._entry = self._entry, ()
        if self._span is None or not entry:
            return streams
        self._at_entry.check(f"a block of {self.run.model}", "its input")
        left = []
        for index, (before, after) in enumerate(zip(entry, streams, strict=True)):
            name = f"span:{index}" if index else "span"
            if before is None:
                left.append(None)
            elif self.is_skipping:
                left.append(self._predict_stream(self._span, name, before).to(after.dtype))
            else:
                # Wan shows its exit a float32 copy; what is cached has the type of the stream itself
                self._push_rows(self._span, name, after.to(before.dtype) - before)
        is_skipping, self.is_skipping = self.is_skipping, False
        return tuple(left) if is_skipping else streams

    def _predict_stream(self, span: Rule, name: str, entry: torch.Tensor) -> torch.Tensor:
        return entry + self.run.predict(span, name, *self.active)

    # ---------------------------------------------------------------- parts of blocks

    def prepare_part(self, name: str, site: Part, tap: Tap) -> None:
        """Before a block runs: hand the tap of one of its modules a prediction, if the plan skips it."""
        rule = self.run.rule_on_part(site)
        tap.reset()
        if rule is not None and self.run.step_of(rule).action == "skip":
            names = self.run.sites[name]
            values = [self.run.predict(rule, each, *self.active) for each in names]
            tap.skip(values[0] if names == (name,) else tuple(values))

    def collect_part(self, name: str, site: Part, tap: Tap) -> None:
        """After a block ran: store what was computed, if it will be used."""
        value = tap.take()
        rule = self.run.rule_on_part(site)
        if rule is None or tap.should_skip:
            return
        if value is None:
            raise RuntimeError(f"{name}: its block ran without it, so {rule.label} has nothing to keep")
        values = value if isinstance(value, tuple) else (value,)
        names = (
            (name,) if isinstance(value, torch.Tensor) else tuple(f"{name}:{i}" for i in range(len(values)))
        )
        self.run.sites[name] = names
        for each, part in zip(names, values, strict=True):
            self._push_rows(rule, each, part)

    def _push_rows(self, rule: Rule, site: str, delta: torch.Tensor) -> None:
        """Store the rows of the branches that will be used, without keeping the rows of the others alive."""
        kept = [branch for branch in self.active if self.run.keeps(rule, branch)]
        # branches share a tensor only if they come and go together
        is_together = len(kept) == 1 or self.run.rule_on(Branch) is None
        for branch in kept:
            rows = rows_of(delta, branch, self.active)
            is_shared = is_together and kept == list(self.active) and is_whole(delta)
            self.run.push(rule, site, branch, rows if is_shared else rows.clone())

    # ---------------------------------------------------------------- signals

    def measure_block(self, probe: BlockProbe, after: torch.Tensor, before: torch.Tensor) -> None:
        """After a measured block ran: the residual `after - before` is what the probe looks at."""
        if self._span is not None and self.run.step_of(self._span).action == "compute":
            self.prober.remember(self.prober.begin(self._span, probe, after, before), is_computed=True)
