"""`Accumulate`: skip while the changes from evaluation to evaluation add up to little. TeaCache's rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keystep.errors import require
from keystep.when.controller import Plan
from keystep.when.schedule import check_position, resolve
from keystep.when.signal import RelativeChange, Signal


@dataclass(frozen=True)
class Accumulated:
    """N, the sum since the last computed evaluation, and the skips since then."""

    num_evaluations: int
    total: float = 0.0
    consecutive: int = 0


@dataclass(frozen=True)
class Accumulate:
    """Add up a polynomial of the change at every evaluation; compute when the sum reaches a threshold.

    Computing sets the sum back to zero, whatever the reason. A change that is no number computes.

    Attributes:
        threshold: the sum at which it is computed (higher = fewer computed).
        change: the measured signal; from evaluation to evaluation with `since="previous"`.
        polynomial: coefficients, highest power first; (1, 0) takes the change as it is.
        num_first, num_last: evaluations computed in any case at the two ends of the run; whole numbers, or
            floats as fractions of the run.
        max_consecutive: at most so many skips in a row; None = no limit.
        minus: a change that is taken off, the absolute difference being added up; None = nothing is.
    """

    threshold: float
    change: RelativeChange
    polynomial: tuple[float, ...] = (1.0, 0.0)
    num_first: int | float = 1
    num_last: int | float = 1
    max_consecutive: int | None = None
    minus: RelativeChange | None = None
    asks = True
    needs_time = False
    needs_noise = False

    def __post_init__(self) -> None:
        require(self.threshold >= 0, "Accumulate.threshold", self.threshold, "a sum of changes >= 0")
        is_given = len(self.polynomial) > 0
        require(is_given, "Accumulate.polynomial", self.polynomial, "coefficients, highest power first")
        check_position(self.num_first, "Accumulate.num_first")
        check_position(self.num_last, "Accumulate.num_last")
        limit = self.max_consecutive
        require(limit is None or limit >= 0, "Accumulate.max_consecutive", limit, "None or evaluations >= 0")

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The change, and what is taken off."""
        return (self.change,) if self.minus is None else (self.change, self.minus)

    def begin(self, num_evaluations: int, times: Sequence[float] = ()) -> Accumulated:
        """Nothing added up yet."""
        del times
        return Accumulated(num_evaluations)

    def plan(self, state: Accumulated, evaluation: int) -> Plan:
        """Compute at the ends and at the limit of skips, else ask."""
        num_all = state.num_evaluations
        is_end = evaluation <= resolve(self.num_first, num_all) or evaluation > num_all - resolve(
            self.num_last, num_all
        )
        is_full = self.max_consecutive is not None and state.consecutive >= self.max_consecutive
        return "compute" if is_end or is_full else "ask"

    def rescale(self, change: float) -> float:
        """The polynomial of a change."""
        value = 0.0
        for coefficient in self.polynomial:
            value = value * change + coefficient
        return value

    def _increment(self, measured: Mapping[str, float]) -> float:
        value = self.rescale(measured[self.change.name])
        return value if self.minus is None else abs(value - measured[self.minus.name])

    def decide(self, state: Accumulated, evaluation: int, measured: Mapping[str, float]) -> Plan:
        """Skip while the sum, this evaluation's change included, is below the threshold."""
        del evaluation
        total = state.total + self._increment(measured)
        return "skip" if total < self.threshold else "compute"

    def update(
        self, state: Accumulated, evaluation: int, is_computed: bool, measured: Mapping[str, float]
    ) -> Accumulated:
        """Add the change of a skipped evaluation; begin anew after a computed one."""
        del evaluation
        if is_computed:
            return Accumulated(state.num_evaluations)
        total = state.total + self._increment(measured)
        return Accumulated(state.num_evaluations, total, state.consecutive + 1)
