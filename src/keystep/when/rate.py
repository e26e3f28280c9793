"""`PredictedChange`: how much the output will have changed, told by the latent. EasyCache's rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from keystep.errors import require
from keystep.what.site import Latent, Prediction
from keystep.when.controller import Plan
from keystep.when.schedule import check_position, resolve
from keystep.when.signal import MeanChange, MeanSize, Signal, ratio

STEP = MeanChange("latent step", Latent(), since="previous")
LATENT = MeanChange("latent change", Latent())
OUTPUT = MeanChange("output change", Prediction())
SIZE = MeanSize("output size", Prediction())


@dataclass(frozen=True)
class RateState:
    """N, the transformation rate, the size of the newest computed output, and the sum since then."""

    num_evaluations: int
    rate: float | None = None
    size: float | None = None
    total: float = 0.0


@dataclass(frozen=True)
class PredictedChange:
    """Add up the relative change of the output that the latent's change foretells; compute at a threshold.

    At each computed evaluation the transformation rate is measured: the mean absolute change of the output
    since the last computed evaluation over that of the latent. In between, rate * (change of the latent since
    the evaluation before) / (mean absolute size of the newest computed output) is what the output is
    expected to change by. In a batch the most restless sample counts, in each of the four numbers.

    Attributes:
        threshold: the sum at which it is computed (higher = fewer computed).
        num_first, num_last: evaluations computed in any case at the two ends of the run; whole numbers, or
            floats as fractions of the run. Two are always computed first: the rate is a matter of two.
    """

    threshold: float
    num_first: int | float = 2
    num_last: int | float = 1
    asks = True
    needs_time = False
    needs_noise = False

    def __post_init__(self) -> None:
        require(self.threshold >= 0, "PredictedChange.threshold", self.threshold, "a sum of changes >= 0")
        check_position(self.num_first, "PredictedChange.num_first")
        check_position(self.num_last, "PredictedChange.num_last")

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The four numbers of the rule."""
        return (STEP, LATENT, OUTPUT, SIZE)

    def begin(self, num_evaluations: int, times: Sequence[float] = ()) -> RateState:
        """Nothing measured yet."""
        del times
        return RateState(num_evaluations)

    def plan(self, state: RateState, evaluation: int) -> Plan:
        """Compute at the ends and while the rate is not known, else ask."""
        num_all = state.num_evaluations
        is_end = evaluation <= resolve(self.num_first, num_all) or evaluation > num_all - resolve(
            self.num_last, num_all
        )
        return "compute" if is_end or state.rate is None or state.size is None else "ask"

    def decide(self, state: RateState, evaluation: int, measured: Mapping[str, float]) -> Plan:
        """Skip while the sum, this evaluation's change included, is below the threshold."""
        del evaluation
        return "skip" if self._add(state, measured) < self.threshold else "compute"

    def _add(self, state: RateState, measured: Mapping[str, float]) -> float:
        assert state.rate is not None and state.size is not None, "the plan asks only when both are known"
        return state.total + ratio(state.rate * measured[STEP.name], state.size)

    def update(
        self, state: RateState, evaluation: int, is_computed: bool, measured: Mapping[str, float]
    ) -> RateState:
        """Measure the rate after a computed evaluation, add up after a skipped one."""
        del evaluation
        if not is_computed:
            return replace(state, total=self._add(state, measured))
        rate = None
        if OUTPUT.name in measured:
            rate = ratio(measured[OUTPUT.name], measured[LATENT.name])
        return RateState(state.num_evaluations, rate, measured.get(SIZE.name))
