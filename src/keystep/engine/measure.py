"""Measurements under way: sums on the device, copied to the host without stopping it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from keystep.engine.agreement import Agreement
from keystep.policy import Rule
from keystep.what import Probe
from keystep.when import Signal


def no_numbers(sums: torch.Tensor) -> torch.Tensor:
    """What is measured on the meta device: nan, so that whoever asks computes."""
    return torch.full(sums.shape, torch.nan)


@dataclass
class Measurement:
    """The sums of one signal in one model call.

    The copy to the host starts at once; only reading it waits, and then only for what was queued before the
    copy, not for the rest of the forward.

    Attributes:
        rule: whose signal it is.
        signal: what was measured.
        probe: where.
        sums: (strides, 2, samples) on the host, valid after `_done`.
        agreement: of the ranks that share the model; None = there is one.
    """

    rule: Rule
    signal: Signal
    probe: Probe
    sums: torch.Tensor
    agreement: Agreement | None = None
    _done: torch.cuda.Event | None = field(default=None)

    @classmethod
    def begin(
        cls,
        rule: Rule,
        signal: Signal,
        probe: Probe,
        value: torch.Tensor,
        previous: Sequence[torch.Tensor],
        frames: int,
        samples: int,
        agreement: Agreement | None = None,
    ) -> Measurement:
        """Queue the reduction of `value` (rows, frames * tokens, C), rows sample-major, and its copy to the
        host.
        """
        sums = signal.measure(value, previous, frames)
        sums = sums.unflatten(-1, (samples, -1)).sum(-1)
        host = no_numbers(sums) if sums.is_meta else sums.to("cpu", non_blocking=sums.is_cuda)
        done = None
        if sums.is_cuda:
            done = torch.cuda.Event()
            done.record(torch.cuda.current_stream(sums.device))
        return cls(rule, signal, probe, host, agreement, done)

    def pairs(self) -> list[list[tuple[float, float]]]:
        """(numerator, denominator) by stride and sample, once they have arrived."""
        return [list(zip(*stride, strict=True)) for stride in self.sums.tolist()]

    @staticmethod
    def _wait(measurements: Sequence[Measurement]) -> None:
        """Wait for the copies, and let the ranks add up what each of them measured."""
        for measurement in measurements:
            if measurement._done is not None:
                measurement._done.synchronize()
        apart = [measurement for measurement in measurements if measurement.agreement is not None]
        if apart and apart[0].agreement is not None:
            sums = apart[0].agreement.add_up(apart)
            for measurement, total in zip(apart, sums, strict=True):
                measurement.sums, measurement.agreement = total, None

    @staticmethod
    def read_all(measurements: Iterable[Measurement]) -> Iterator[tuple[str, str, float]]:
        """(rule label, signal name, value), the calls of one evaluation pooled at each probe."""
        measurements = list(measurements)
        Measurement._wait(measurements)
        groups: dict[tuple[str, str], dict[Probe, list[Measurement]]] = {}
        for measurement in measurements:
            group = groups.setdefault((measurement.rule.label, measurement.signal.name), {})
            group.setdefault(measurement.probe, []).append(measurement)
        for (label, name), probes in groups.items():
            rows: list[list[tuple[float, float]]] = []
            for calls in probes.values():
                strides = zip(*[measurement.pairs() for measurement in calls], strict=True)
                rows.extend([pair for pairs in stride for pair in pairs] for stride in strides)
            signal = next(iter(probes.values()))[0].signal
            yield label, name, signal.combine(rows)
