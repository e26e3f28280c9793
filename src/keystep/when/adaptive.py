"""Adaptive controllers: decisions from what was measured during the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from keystep.errors import require
from keystep.when.controller import Plan
from keystep.when.signal import MotionRatio, RelativeChange, Signal


@dataclass(frozen=True)
class MotionRegularisation:
    """MoReg (AdaCache, arXiv 2411.02397, section 3.3): spend more evaluations on videos that move more.

    Inside the window the distance is multiplied by M = M0 + |g| with M0 = (motion / pivot) ** exponent /
    divisor and g = gradient * (M0 - previous M0) / rate; outside M0 = 1. The paper's eq. 9 has neither the
    absolute value nor the exponent; this is the reference code. Its divisor is 1 (a typing slip for 1.2),
    kept because the published numbers presumably were made with it.

    Attributes:
        first, last: the window in evaluations (1-based, inclusive).
        motion: the signal; its strides are the frame distances compared.
        pivot: the motion ratio that leaves the distance as it is (lower = more videos get more evaluations).
        exponent: sharpness of the switch at the pivot.
        gradient: weight of the change of motion.
    """

    first: int
    last: int
    motion: MotionRatio = field(default_factory=MotionRatio)
    pivot: float = 0.385
    exponent: float = 8.0
    divisor: float = 1.0
    gradient: float = 10.0

    def __post_init__(self) -> None:
        require(self.pivot > 0, "MotionRegularisation.pivot", self.pivot, "a motion ratio > 0")
        require(self.divisor > 0, "MotionRegularisation.divisor", self.divisor, "a number > 0")

    def factor(self, motion: float, previous: float, rate: int, evaluation: int) -> tuple[float, float]:
        """(M, M0) at `evaluation`; `previous` is the last M0, `rate` the gap it was planned for.

        A motion of nan (a single frame has none) leaves the distance as it is.
        """
        is_inside = self.first <= evaluation <= self.last and motion == motion
        level = (motion / self.pivot) ** self.exponent / self.divisor if is_inside else 1.0
        return level + abs(self.gradient * (level - previous) / rate), level


@dataclass(frozen=True)
class CodebookState:
    """N, the last computed evaluation, the rate (gap to the next) and the last motion level."""

    num_evaluations: int
    computed: int = 0
    rate: int = 1
    level: float = 1.0


@dataclass(frozen=True)
class Codebook:
    """AdaCache's controller: the distance at a computed evaluation looks up the gap to the next one.

    The distance is divided by the gap it was planned for. The first and the last two evaluations are always
    computed, and so is the second (nothing was measured before it).

    Attributes:
        entries: (threshold, rate) pairs with rising thresholds: the first with distance < threshold gives the
            rate.
        otherwise: the rate beyond the last threshold, also for a distance that is not a number. A rate of k
            computes again k evaluations later, so k - 1 are skipped.
        distance: the measured signal.
        moreg: motion regularisation, or None.
    """

    entries: tuple[tuple[float, int], ...]
    otherwise: int = 1
    distance: RelativeChange = field(default_factory=RelativeChange)
    moreg: MotionRegularisation | None = None
    asks = False
    needs_time = False
    needs_noise = False

    def __post_init__(self) -> None:
        thresholds = [threshold for threshold, _ in self.entries]
        require(thresholds == sorted(set(thresholds)), "Codebook.entries", self.entries, "rising thresholds")
        rates = [rate for _, rate in self.entries] + [self.otherwise]
        require(min(rates) >= 1, "Codebook.entries", self.entries, "rates >= 1 (1 = skip nothing)")

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The distance, and the motion ratio where it is regularised."""
        return (self.distance,) if self.moreg is None else (self.distance, self.moreg.motion)

    def begin(self, num_evaluations: int, times: Sequence[float] = ()) -> CodebookState:
        """Nothing measured yet: rate 1."""
        del times
        return CodebookState(num_evaluations)

    def plan(self, state: CodebookState, evaluation: int) -> Plan:
        """Compute when the rate has run out, and at the ends."""
        is_end = evaluation == 1 or evaluation >= state.num_evaluations - 1
        return "compute" if is_end or evaluation >= state.computed + state.rate else "skip"

    def decide(self, state: CodebookState, evaluation: int, measured: Mapping[str, float]) -> Plan:
        """Never asked."""
        raise AssertionError("a codebook decides before the forward")

    def lookup(self, distance: float) -> int:
        """The rate for a distance per evaluation."""
        return next((rate for threshold, rate in self.entries if distance < threshold), self.otherwise)

    def update(
        self, state: CodebookState, evaluation: int, is_computed: bool, measured: Mapping[str, float]
    ) -> CodebookState:
        """After a computed evaluation: measure, regularise, look up. Without a measurement the rate is 1."""
        if not is_computed:
            return state
        if self.distance.name not in measured:
            return CodebookState(state.num_evaluations, evaluation, 1, state.level)
        distance, level = measured[self.distance.name] / state.rate, state.level
        if self.moreg is not None:
            motion = measured.get(self.moreg.motion.name, float("nan"))
            factor, level = self.moreg.factor(motion, level, state.rate, evaluation)
            distance *= factor
        return CodebookState(state.num_evaluations, evaluation, self.lookup(distance), level)
