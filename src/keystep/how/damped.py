"""`Damped`: a line through the last two computed values, flatter by as much as such lines overshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keystep.errors import require
from keystep.how.history import Entry, Moment


@dataclass(frozen=True)
class Damped:
    """Extrapolate linearly in evaluations, times a damping fitted on line.

    At each computed value the change that came is set against the change that the undamped line foretold: the
    coefficient of least squares, for each sample and channel, clipped to 0..1, moves the damping by `rate`.
    It stays on the device. Before there is a second value it holds.

    Attributes:
        start: damping before anything was fitted (1 = the undamped line, 0 = hold).
        rate: how much of the damping a new coefficient replaces; 0 = it stays as it starts.
    """

    start: float = 0.5
    rate: float = 0.5
    num_entries = 2
    num_needed = 1
    learns = True
    needs_time = False
    signals = ()

    def __post_init__(self) -> None:
        require(0 <= self.start <= 1, "Damped.start", self.start, "0 to 1")
        require(0 <= self.rate <= 1, "Damped.rate", self.rate, "0 to 1")

    def keep(
        self, delta: torch.Tensor, history: Sequence[Entry] = (), now: Moment | None = None
    ) -> tuple[torch.Tensor, ...]:
        """The value, (B, C, ...), and the damping that holds from now on, (B, C, 1 ...)."""
        if not history:
            return (delta, delta.new_full((*delta.shape[:2], *[1] * (delta.ndim - 2)), self.start))
        damping = history[-1].values[1]
        if len(history) < 2 or now is None or not self.rate:
            return (delta, damping)
        older, newer = history[-2].values[0], history[-1].values[0]
        came = (delta - newer).flatten(2)
        foretold = (newer - older).flatten(2) * _steps(history, now)
        size = (foretold * foretold).sum(-1).clamp(min=torch.finfo(delta.dtype).tiny)
        fitted = ((foretold * came).sum(-1) / size).clamp(0, 1)
        return (delta, torch.lerp(damping, fitted.reshape(damping.shape), self.rate))

    def predict(self, history: Sequence[Entry], now: Moment) -> torch.Tensor:
        """The newest value, moved on along the damped line."""
        if len(history) < 2:
            return history[-1].values[0]
        older, newest = history[-2].values[0], history[-1].values[0]
        return torch.addcmul(newest, newest - older, history[-1].values[1] * _steps(history, now))


def _steps(history: Sequence[Entry], now: Moment) -> float:
    """Evaluations since the newest entry, over those between the last two."""
    older, newest = history[-2].moment.evaluation, history[-1].moment.evaluation
    return (now.evaluation - newest) / (newest - older)
