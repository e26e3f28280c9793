"""`Linear`: extrapolation through the last two computed deltas, with a choice of weights.

`predict = newest + w * (newest - older)`. FasterCache (arXiv 2410.19355, eq. 5) lets w grow over the run; w
from the spacing of the steps is exact for features that drift linearly in the scheduler's time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keystep.errors import require
from keystep.how.history import Entry, Moment
from keystep.when.signal import Progress, Signal


@dataclass(frozen=True)
class Constant:
    """The same weight at every reuse (0 = hold, 0.5 = half of the last change again)."""

    value: float

    def at(self, history: Sequence[Entry], now: Moment) -> float:
        """The weight."""
        del history, now
        return self.value


@dataclass(frozen=True)
class Ramp:
    """A weight that grows linearly with the evaluation index and is never below `floor`.

    Attributes:
        start, stop: evaluations (1-based) at which the weight is `first` and `last`; it goes on beyond them.
        floor: lower bound of the weight.
    """

    start: float
    first: float
    stop: float
    last: float
    floor: float = 0.0

    def __post_init__(self) -> None:
        require(self.stop > self.start, "Ramp.stop", self.stop, f"an evaluation after start={self.start}")

    def at(self, history: Sequence[Entry], now: Moment) -> float:
        """The weight at evaluation `now`."""
        del history
        slope = (self.last - self.first) / (self.stop - self.start)
        return max(self.floor, self.first + slope * (now.evaluation - self.start))


@dataclass(frozen=True)
class Spacing:
    """The weight that makes a straight line in time exact, times `damping` (1 = no damping, 0 = hold)."""

    damping: float = 1.0

    def __post_init__(self) -> None:
        require(0 <= self.damping <= 1, "Spacing.damping", self.damping, "0 to 1")

    def at(self, history: Sequence[Entry], now: Moment) -> float:
        """(now - newest) / (newest - older) in scheduler time; 0 where the two entries share one timestep."""
        older, newest = history[-2].moment, history[-1].moment
        gap = newest.time - older.time
        return self.damping * (now.time - newest.time) / gap if gap else 0.0


@dataclass(frozen=True)
class Measured:
    """The weight that a signal tells: how far the probe has gone on, less 1, within limits.

    Attributes:
        progress: the signal.
        least, most: limits of the progress (1 = hold the newest delta, 1.5 = half of the last change again).
    """

    progress: Progress
    least: float = 1.0
    most: float = 1.5

    def __post_init__(self) -> None:
        require(self.least <= self.most, "Measured.most", self.most, f"a progress >= least={self.least}")

    def at(self, history: Sequence[Entry], now: Moment) -> float:
        """The weight; that of the least progress where nothing was measured."""
        del history
        progress = now.measured.get(self.progress.name, self.least)
        return min(self.most, max(self.least, progress)) - 1.0


@dataclass(frozen=True)
class Linear:
    """Extrapolate through the last two computed deltas with the given weight (a number is a `Constant`)."""

    weight: Constant | Ramp | Spacing | Measured | float = Spacing()
    num_entries = 2
    num_needed = 2
    learns = False

    def __post_init__(self) -> None:
        if isinstance(self.weight, (int, float)):
            object.__setattr__(self, "weight", Constant(float(self.weight)))
        require(
            hasattr(self.weight, "at"),
            "Linear.weight",
            self.weight,
            "a number, Constant, Ramp, Spacing or Measured",
        )

    @property
    def needs_time(self) -> bool:
        """Only for weights by spacing."""
        return isinstance(self.weight, Spacing)

    @property
    def signals(self) -> tuple[Signal, ...]:
        """Only for a measured weight."""
        return (self.weight.progress,) if isinstance(self.weight, Measured) else ()

    def keep(
        self, delta: torch.Tensor, history: Sequence[Entry] = (), now: Moment | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Store the delta itself."""
        del history, now
        return (delta,)

    def predict(self, history: Sequence[Entry], now: Moment) -> torch.Tensor:
        """newest + w * (newest - older), in one fused operation (computed in float32 for half types)."""
        assert not isinstance(self.weight, (int, float)), "made a Constant when it was given"
        older, newest = history[-2].values[0], history[-1].values[0]
        return torch.lerp(older, newest, 1.0 + self.weight.at(history, now))
