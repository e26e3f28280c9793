"""Probing: measure a value against what was probed before, and remember it for the next time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import torch

from keystep.engine.agreement import Agreement
from keystep.engine.history import Key
from keystep.engine.measure import Measurement
from keystep.engine.run import Run
from keystep.how import Entry
from keystep.policy import Rule
from keystep.what import LEAD, Probe
from keystep.what.branch import rows_of
from keystep.when import Signal


def is_whole(tensor: torch.Tensor) -> bool:
    """Whether a tensor fills its storage, so that keeping it keeps nothing else alive."""
    return tensor.untyped_storage().nbytes() == tensor.nbytes


@dataclass(frozen=True)
class Probed:
    """A value at a probe.

    Attributes:
        key: where its predecessor is kept.
        value: what was seen.
        is_own: whether it was made here; what belongs to the model or the pipeline may be overwritten.
        since: when its predecessor is replaced, see `RelativeChange`.
        num_kept: how many of its kind later evaluations compare with.
        measurements: what is being measured on it.
    """

    key: Key
    value: torch.Tensor
    is_own: bool
    since: str
    num_kept: int
    measurements: list[Measurement]


@dataclass(frozen=True)
class Prober:
    """Measures in one model call.

    Attributes:
        run: the generation.
        active: branches in this call, in the order of the rows.
        samples: rows of the latent per branch.
        num_frames: latent frames.
        agreement: of the ranks that share the model; None = there is one.
    """

    run: Run
    active: tuple[str, ...]
    samples: int
    num_frames: int
    agreement: Agreement | None = None

    @property
    def lead(self) -> str:
        """The branch that is measured where the leading one decides."""
        return LEAD if self.agreement is None else self.agreement.lead

    def begin(
        self, rule: Rule, probe: Probe, after: torch.Tensor, before: torch.Tensor | None = None
    ) -> Iterator[Probed]:
        """Begin to measure `after`, or the residual `after - before`, for the signals of a probe."""
        for over, since in product(("lead", "all"), ("computed", "previous")):
            signals = [s for s in rule.signals if probe in s.probes and (s.over, s.since) == (over, since)]
            if signals and (over == "all" or self.lead in self.active):
                yield self._begin(rule, signals, probe, after, before)

    def _begin(
        self,
        rule: Rule,
        signals: list[Signal],
        probe: Probe,
        after: torch.Tensor,
        before: torch.Tensor | None,
    ) -> Probed:
        over, since = signals[0].over, signals[0].since
        branches = (self.lead,) if over == "lead" else self.active
        if over == "lead":
            after = rows_of(after, self.lead, self.active)
            before = None if before is None else rows_of(before, self.lead, self.active)
        value = after.detach() if before is None else (after.to(before.dtype) - before).detach()
        key = (f"probe of {rule.label}", f"{probe} {over} {since}", "+".join(branches))
        previous = [entry.values[0] for entry in self.run.histories.get(key)]
        samples = self.samples * len(branches)
        measurements = [
            Measurement.begin(
                rule,
                signal,
                probe,
                value,
                previous[len(previous) - signal.num_previous :],
                self.num_frames,
                samples,
                self.agreement,
            )
            for signal in signals
            if len(previous) >= signal.num_previous
        ]
        self.run.recorder.note(*measurements)
        num_kept = max(signal.num_previous for signal in signals)
        return Probed(key, value, before is not None, since, num_kept, measurements)

    def remember(self, probed: Iterable[Probed], is_computed: bool) -> None:
        """Put what was seen in the place of its predecessors."""
        for seen in probed:
            if seen.num_kept and (is_computed or seen.since == "previous"):
                value = seen.value if seen.is_own and is_whole(seen.value) else seen.value.clone()
                self.run.histories.trim(seen.key, seen.num_kept - 1)
                self.run.histories.push(seen.key, Entry(self.run.now, (value,)), seen.num_kept)

    def ask(self, rule: Rule, probed: Iterable[Probed]) -> None:
        """Let the controller decide by what was measured, where the plan left it open; remember it."""
        probed = list(probed)
        if self.run.step_of(rule).action == "ask":
            measurements = [measurement for seen in probed for measurement in seen.measurements]
            self.run.ask(rule, {name: value for _, name, value in Measurement.read_all(measurements)})
            if self.agreement is not None:
                self.agreement.check(self.run.plan)
        self.remember(probed, self.run.step_of(rule).action == "compute")
