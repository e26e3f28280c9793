"""`Taylor`: polynomial extrapolation through the last order + 1 computed deltas, exact on uneven steps.

TaylorSeer (arXiv 2503.06923) divides backward differences by the last gap only, which is wrong as soon as the
gaps differ; the Newton / Lagrange form used here is exact for polynomials of the given degree at any spacing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keystep.errors import require
from keystep.how.history import Entry, Moment


@dataclass(frozen=True)
class Taylor:
    """Extrapolate with a polynomial of degree `order` in the scheduler's time.

    Attributes:
        order: degree; 0 holds, 1 is `Linear(Spacing())`. Each order keeps one more tensor per site.
    """

    order: int = 1
    signals = ()
    learns = False

    def __post_init__(self) -> None:
        require(0 <= self.order <= 4, "Taylor.order", self.order, "0 to 4")

    @property
    def num_entries(self) -> int:
        """order + 1 computed deltas."""
        return self.order + 1

    @property
    def num_needed(self) -> int:
        """All of them."""
        return self.num_entries

    @property
    def needs_time(self) -> bool:
        """Unless it holds."""
        return self.order > 0

    def keep(
        self, delta: torch.Tensor, history: Sequence[Entry] = (), now: Moment | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Store the delta itself."""
        del history, now
        return (delta,)

    def predict(self, history: Sequence[Entry], now: Moment) -> torch.Tensor:
        """Lagrange form: one weighted sum, the weights in Python floats."""
        entries = history[-self.num_entries :]
        # Samplers with Runge-Kutta warm-up repeat timesteps; of several entries at one time the newest
        # counts.
        by_time = {entry.moment.time: entry.values[0] for entry in entries}
        times = list(by_time)
        result: torch.Tensor | None = None
        for time, value in by_time.items():
            weight = 1.0
            for other in times:
                if other != time:
                    weight *= (now.time - other) / (time - other)
            result = value * weight if result is None else result.add(value, alpha=weight)
        assert result is not None, "the planner asks only with a history"
        return result
