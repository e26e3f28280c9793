"""What a predictor may look at: computed deltas, each with the moment it was computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from keystep.when.signal import Signal


@dataclass(frozen=True)
class Moment:
    """A point of the run.

    Attributes:
        evaluation: 1-based index of the model evaluation.
        time: the scheduler's timestep at that evaluation (its own units; decreasing over a run).
        measured: signals by name, as far as they were read before what is predicted.
    """

    evaluation: int
    time: float
    measured: Mapping[str, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Entry:
    """One computed delta (or what the predictor keeps of it) and when it was computed.

    Attributes:
        moment: when.
        values: what the predictor keeps.
        device, dtypes: of the values when they were computed, where they are stored otherwise.
    """

    moment: Moment
    values: tuple[torch.Tensor, ...]
    device: torch.device | None = None
    dtypes: tuple[torch.dtype, ...] = ()


class Predictor(Protocol):
    """HOW a skipped value is filled in: a pure function of the history.

    Deltas are given newest last in `history`.
    """

    @property
    def num_entries(self) -> int:
        """Computed deltas it looks at."""
        ...

    @property
    def num_needed(self) -> int:
        """Computed deltas without which it cannot predict."""
        ...

    @property
    def needs_time(self) -> bool:
        """Whether it looks at `Moment.time`."""
        ...

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What it looks at in `Moment.measured`; mostly nothing."""
        ...

    @property
    def learns(self) -> bool:
        """Whether `keep` looks at the history."""
        ...

    def keep(
        self, delta: torch.Tensor, history: Sequence[Entry] = (), now: Moment | None = None
    ) -> tuple[torch.Tensor, ...]:
        """What to store of a delta computed `now`; `history` is what is stored of earlier ones."""
        ...

    def predict(self, history: Sequence[Entry], now: Moment) -> torch.Tensor:
        """The delta at `now`; same shape, dtype and device as a computed one. Never changes `history`."""
        ...
