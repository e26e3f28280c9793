"""`Taylor`: polynomial extrapolation through the last order + 1 computed deltas, exact on uneven steps.

TaylorSeer (arXiv 2503.06923) divides backward differences by the last gap only, which is wrong as soon as the
gaps differ; the Newton / Lagrange form used here is exact for polynomials of the given degree at any spacing.

Spacing is counted in evaluations, as the reference codes do: samplers shift their timesteps to where the
model's output changes, and lines over evaluations come out 1 to 3 dB ahead of lines over timesteps
(bench/LOG.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from keystep.errors import require
from keystep.how.history import Entry, Moment


@dataclass(frozen=True)
class Taylor:
    """Extrapolate with a polynomial of degree `order`.

    Attributes:
        order: degree; 0 holds. Each order keeps one more tensor per site.
        over: what it is a polynomial of: `"evaluations"`, or `"time"`, the scheduler's timesteps.
    """

    order: int = 1
    over: Literal["evaluations", "time"] = "evaluations"
    signals = ()
    learns = False

    def __post_init__(self) -> None:
        require(0 <= self.order <= 4, "Taylor.order", self.order, "0 to 4")
        require(self.over in ("evaluations", "time"), "Taylor.over", self.over, "'evaluations' or 'time'")

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
        """Whether it is a polynomial of it."""
        return self.order > 0 and self.over == "time"

    def keep(
        self, delta: torch.Tensor, history: Sequence[Entry] = (), now: Moment | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Store the delta itself."""
        del history, now
        return (delta,)

    def predict(self, history: Sequence[Entry], now: Moment) -> torch.Tensor:
        """Lagrange form: one weighted sum, the weights in Python floats; a line is one fused operation."""
        entries = history[-self.num_entries :]
        # Samplers with Runge-Kutta warm-up repeat timesteps; of several entries at one time the newest
        # counts.
        by_place = {self._place(entry.moment): entry.values[0] for entry in entries}
        target = self._place(now)
        if len(by_place) == 2:
            (first, older), (last, newest) = by_place.items()
            return torch.lerp(older, newest, (target - first) / (last - first))
        result: torch.Tensor | None = None
        for place, value in by_place.items():
            weight = 1.0
            for other in by_place:
                if other != place:
                    weight *= (target - other) / (place - other)
            result = value * weight if result is None else result.add(value, alpha=weight)
        assert result is not None, "the planner asks only with a history"
        return result

    def _place(self, moment: Moment) -> float:
        return moment.time if self.over == "time" else float(moment.evaluation)
