"""What a generation writes down: signals as they are read, and at its end how far the video is off."""

from __future__ import annotations

import time
from collections.abc import Sequence

from keystep.engine.measure import Measurement
from keystep.engine.trace import Trace
from keystep.when.control import CORRECTION, amplified


class Recorder:
    """Fills a trace.

    Args:
        trace: where to write.
        noises: share of noise in the latent at each evaluation; needed where corrections are measured.
    """

    def __init__(self, trace: Trace, noises: Sequence[float]) -> None:
        self._trace, self._noises = trace, noises
        self._pending: list[Measurement] = []
        self._unread: list[tuple[int, list[Measurement]]] = []  # by row of the trace
        self._clock = time.perf_counter()

    def note(self, *measurements: Measurement) -> None:
        """Measured in the evaluation under way, perhaps still on its way from the device."""
        self._pending.extend(measurements)

    def read(self) -> dict[str, dict[str, float]]:
        """Rule name -> signal name -> value: what decides; what is only shown waits for `read_rest`."""
        measured: dict[str, dict[str, float]] = {}
        wanted = [each for each in self._pending if each.signal in each.rule.signals]
        for label, name, value in Measurement.read_all(wanted):
            measured.setdefault(label, {})[name] = value
        rest = [each for each in self._pending if each.signal not in each.rule.signals]
        if rest:
            self._unread.append((len(self._trace.rows), rest))
        self._pending.clear()
        return measured

    def lap(self) -> float:
        """Seconds since the evaluation before ended."""
        before, self._clock = self._clock, time.perf_counter()
        return self._clock - before

    def read_rest(self) -> None:
        """Complete the trace: its rows, and what the corrections say of the video."""
        for index, measurements in self._unread:
            values = {name: value for _, name, value in Measurement.read_all(measurements)}
            self._trace.rows[index].signals.update(values)
        self._unread.clear()
        moved = [
            (row, row.signals[CORRECTION.name]) for row in self._trace.rows if CORRECTION.name in row.signals
        ]
        if moved:
            shares = (amplified(size, self._noises[row.evaluation - 1]) ** 2 for row, size in moved)
            self._trace.estimated_error = sum(shares) ** 0.5
