"""`Below`: skip while the change at a probe is small. The rule of first-block caching (FBCache, DBCache)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keystep.errors import require
from keystep.when.controller import Plan
from keystep.when.schedule import check_letters
from keystep.when.signal import RelativeChange, Signal


@dataclass(frozen=True)
class BelowState:
    """N, the skips in a row, the skips in all, and the sum of all changes that were asked for."""

    num_evaluations: int
    consecutive: int = 0
    skips: int = 0
    total: float = 0.0


@dataclass(frozen=True)
class Below:
    """Ask at the probe, skip while the change since the last computed evaluation is below a threshold.

    What is probed always runs. The limits are those of cache-dit's DBCache.

    Attributes:
        threshold: relative change (higher = fewer computed).
        change: the measured signal; its probe must lie before the skipped span.
        num_first, num_last: evaluations computed in any case at the two ends of the run.
        max_consecutive: at most so many skips in a row; None = no limit.
        max_skips: at most so many skips in a run; None = no limit.
        max_total: no skips once the changes that were asked for add up to this; inf = no limit.
        mask: evaluations with the letter "C" are computed in any case, those with "s" are asked for; empty =
            all are asked for.
    """

    threshold: float
    change: RelativeChange
    num_first: int = 1
    num_last: int = 1
    max_consecutive: int | None = None
    max_skips: int | None = None
    max_total: float = float("inf")
    mask: str = ""
    asks = True
    needs_time = False
    needs_noise = False

    def __post_init__(self) -> None:
        require(self.threshold >= 0, "Below.threshold", self.threshold, "a relative change >= 0")
        for name in ("max_consecutive", "max_skips"):
            limit = getattr(self, name)
            require(limit is None or limit >= 0, f"Below.{name}", limit, "None or evaluations >= 0")
        require(self.max_total >= 0, "Below.max_total", self.max_total, "a sum of changes >= 0")
        require(set(self.mask) <= {"C", "s"}, "Below.mask", self.mask, "C and s, as 'CCsCs', or nothing")

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The change at the probe."""
        return (self.change,)

    def begin(self, num_evaluations: int, times: Sequence[float] = ()) -> BelowState:
        """Nothing skipped yet; checks the length of the mask."""
        del times
        if self.mask:
            check_letters(self.mask, num_evaluations, "Below.mask")
        return BelowState(num_evaluations)

    def plan(self, state: BelowState, evaluation: int) -> Plan:
        """Compute at the ends, where the mask says so and at the limits; else ask."""
        is_end = evaluation <= self.num_first or evaluation > state.num_evaluations - self.num_last
        is_masked = self.mask[evaluation - 1 : evaluation] == "C"
        is_full = (
            (self.max_consecutive is not None and state.consecutive >= self.max_consecutive)
            or (self.max_skips is not None and state.skips >= self.max_skips)
            or state.total >= self.max_total
        )
        return "compute" if is_end or is_masked or is_full else "ask"

    def decide(self, state: BelowState, evaluation: int, measured: Mapping[str, float]) -> Plan:
        """Skip below the threshold."""
        del state, evaluation
        return "skip" if measured[self.change.name] < self.threshold else "compute"

    def update(
        self, state: BelowState, evaluation: int, is_computed: bool, measured: Mapping[str, float]
    ) -> BelowState:
        """Count skips, add up changes."""
        was_asked = self.plan(state, evaluation) == "ask"
        total = state.total + (measured.get(self.change.name, 0.0) if was_asked else 0.0)
        if is_computed:
            return BelowState(state.num_evaluations, 0, state.skips, total)
        return BelowState(state.num_evaluations, state.consecutive + 1, state.skips + 1, total)
