"""One call of a transformer while a policy is attached: what its blocks do to the histories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from keystep.engine.history import Key
from keystep.engine.measure import Measurement
from keystep.engine.run import Run
from keystep.how import Entry
from keystep.policy import Rule
from keystep.what import LEAD, BlockProbe, Probe, Span
from keystep.what.branch import rows_of
from keystep.when import Signal

if TYPE_CHECKING:
    from keystep.engine.tap import Tap
    from keystep.models.spec import ModelSpec
    from keystep.what import Part


def is_whole(tensor: torch.Tensor) -> bool:
    """Whether a tensor fills its storage, so that keeping it keeps nothing else alive."""
    return tensor.untyped_storage().nbytes() == tensor.nbytes


@dataclass(frozen=True)
class Probed:
    """A residual at a probe: where its predecessor is kept, its value, and what is being measured on it."""

    key: Key
    value: torch.Tensor
    measurements: list[Measurement]


class Call:
    """The call under way.

    Args:
        run: the generation.
        spec: of the model.
        module: the model.
        active: branches in this call, in the order of the rows.
        latent: the latent argument as the model gets it.
    """

    def __init__(
        self,
        run: Run,
        spec: ModelSpec,
        module: torch.nn.Module,
        active: tuple[str, ...],
        latent: torch.Tensor,
    ) -> None:
        self.run = run
        self.active = active
        self.is_skipping = False
        self.samples = latent.shape[0] // len(active)
        self.num_frames = spec.count_frames(module, latent)
        self._span = run.rule_on(Span)
        self._span_start = self._span.what.start if self._span and isinstance(self._span.what, Span) else 0
        self._first: torch.Tensor | None = None  # input of block 0, where a probe needs it
        self._entry: torch.Tensor | None = None  # input of the span

    # ---------------------------------------------------------------- span

    def enter_block(self, index: int, hidden: torch.Tensor) -> None:
        """A block of the first list is about to run; `hidden` is its input."""
        if index == 0:
            num_branches = len(self.run.branches)
            num_bytes = hidden.nbytes // len(self.active) * num_branches
            self.run.trace.hidden_state_bytes = max(self.run.trace.hidden_state_bytes, num_bytes)
            self._first = hidden if self._span is not None and self._span.when.asks else None
        if self._span is None or index != self._span_start:
            return
        if self._span.when.asks:
            self._probe_prefix(self._span, hidden)
        self.is_skipping = self.run.step_of(self._span).action == "skip"
        if self.is_skipping or self._keeps_span():
            self._entry = hidden

    def _probe_prefix(self, span: Rule, hidden: torch.Tensor) -> None:
        """Measure what the blocks before the span did; ask, where the plan left it open."""
        first, self._first = self._first, None
        assert first is not None, "block 0 runs before the span begins"
        if LEAD not in self.active:
            return
        signals = list(span.when.signals)
        (probe,) = {probe for signal in signals for probe in signal.probes}  # see Rule: the blocks before
        probed = self._probe(span, signals, probe, hidden, first, "lead")
        if self.run.step_of(span).action == "ask":
            found = {name: value for _, name, value in Measurement.read_all(probed.measurements)}
            self.run.ask(span, found)
        if self.run.step_of(span).action == "compute":
            self._remember(probed)

    def _keeps_span(self) -> bool:
        return self._span is not None and any(self.run.keeps(self._span, branch) for branch in self.active)

    def leave_span(self, hidden: torch.Tensor) -> torch.Tensor:
        """The hidden state after the last block: measured when computed, predicted when skipped."""
        entry, self._entry = self._entry, None
        if self._span is None or entry is None:
            return hidden
        if not self.is_skipping:
            # Wan shows its exit a float32 copy; what is cached has the type of the stream itself
            self._push_rows(self._span, "span", hidden.to(entry.dtype) - entry)
            return hidden
        self.is_skipping = False
        parts = [
            rows_of(entry, branch, self.active) + self.run.predict(self._span, "span", branch)
            for branch in self.active
        ]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(hidden.dtype)

    # ---------------------------------------------------------------- parts of blocks

    def prepare_part(self, name: str, site: Part, tap: Tap) -> None:
        """Before a block runs: hand the tap of one of its modules a prediction, if the plan skips it."""
        rule = self.run.rule_on_part(site)
        tap.should_skip = rule is not None and self.run.step_of(rule).action == "skip"
        tap.value = None
        if rule is not None and tap.should_skip:
            names = self.run.sites[name]
            values = [self._assemble(rule, each) for each in names]
            tap.value = values[0] if names == (name,) else tuple(values)

    def _assemble(self, rule: Rule, name: str) -> torch.Tensor:
        parts = [self.run.predict(rule, name, branch) for branch in self.active]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

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
        for branch in kept:
            rows = rows_of(delta, branch, self.active)
            is_shared = kept == list(self.active) and is_whole(delta)
            self.run.push(rule, site, branch, rows if is_shared else rows.clone())

    # ---------------------------------------------------------------- signals

    def measure_block(self, probe: BlockProbe, after: torch.Tensor, before: torch.Tensor) -> None:
        """After a measured block ran: the residual `after - before` is what the probe looks at."""
        if self._span is None or self.run.step_of(self._span).action != "compute":
            return
        for rows in ("lead", "all"):
            signals = [s for s in self._span.when.signals if probe in s.probes and s.over == rows]
            if signals and (rows == "all" or LEAD in self.active):
                self._remember(self._probe(self._span, signals, probe, after, before, rows))

    def _probe(
        self,
        span: Rule,
        signals: list[Signal],
        probe: Probe,
        after: torch.Tensor,
        before: torch.Tensor,
        rows: str,
    ) -> Probed:
        """Begin to measure the residual after - before, against the one of the last computed evaluation."""
        branches = (LEAD,) if rows == "lead" else self.active
        if rows == "lead":
            after, before = rows_of(after, LEAD, self.active), rows_of(before, LEAD, self.active)
        value = (after.to(before.dtype) - before).detach()
        samples = self.samples * len(branches)
        key = (f"probe of {span.label}", f"{probe} {rows}", "+".join(branches))
        entries = self.run.histories.get(key)
        previous = entries[-1].values[0] if entries else None
        measurements = [
            Measurement.begin(span, signal, probe, value, previous, self.num_frames, samples)
            for signal in signals
            if previous is not None or not signal.needs_previous
        ]
        self.run.measurements.extend(measurements)
        return Probed(key, value, measurements)

    def _remember(self, probed: Probed) -> None:
        """Put the residual in the place of the previous one."""
        self.run.histories.trim(probed.key, 0)
        self.run.histories.push(probed.key, Entry(self.run.now, (probed.value,)), 1)
