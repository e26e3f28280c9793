"""Schedules: controllers that decide from the evaluation index alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keystep.errors import require
from keystep.when.controller import Plan, Schedule


def resolve(position: int | float, num_evaluations: int) -> int:
    """An evaluation index from a position: a whole number is an index, a float a fraction of N (0.36 of 50 =
    18).
    """
    return position if isinstance(position, int) else round(position * num_evaluations)


def check_position(position: int | float, field: str) -> None:
    """Raise unless `position` is an index >= 0 or a fraction from 0 to 1."""
    is_valid = position >= 0 and (isinstance(position, int) or position <= 1)
    require(is_valid, field, position, "an evaluation (int >= 0) or a fraction of the run (float 0.0 to 1.0)")


def check_letters(letters: str, num_evaluations: int, field: str) -> None:
    """Raise unless there is one letter for each evaluation."""
    allowed = f"{num_evaluations} letters, one for each evaluation of this run (it has {len(letters)})"
    require(len(letters) == num_evaluations, field, letters, allowed)


@dataclass(frozen=True)
class Always(Schedule):
    """Compute every evaluation; skips nothing."""

    def plan(self, state: int, evaluation: int) -> Plan:
        """Compute."""
        del state, evaluation
        return "compute"


@dataclass(frozen=True)
class Every(Schedule):
    """From `start` on compute one evaluation of `period` and skip the others.

    Attributes:
        period: 1 = compute all, 5 = compute one of five (higher = fewer computed).
        start: first evaluation that may be skipped; int = 1-based index, float = fraction of the run.
        stop: last evaluation that may be skipped, likewise.
        phase: evaluations k with k % period == phase % period are the computed ones.
        is_last_computed: compute the last evaluation of the run whatever the phase says.
    """

    period: int
    start: int | float = 1
    stop: int | float = 1.0
    phase: int = 0
    is_last_computed: bool = False

    def __post_init__(self) -> None:
        require(isinstance(self.period, int), "Every.period", self.period, "a whole number of evaluations")
        require(
            self.period >= 1,
            "Every.period",
            self.period,
            "an interval >= 1; 1 or Always() switches the rule off",
        )
        check_position(self.start, "Every.start")
        check_position(self.stop, "Every.stop")

    def plan(self, state: int, evaluation: int) -> Plan:
        """Skip inside the window, except at the phase."""
        is_inside = resolve(self.start, state) <= evaluation <= resolve(self.stop, state)
        is_key = (evaluation - self.phase) % self.period == 0
        if not is_inside or is_key or (self.is_last_computed and evaluation == state):
            return "compute"
        return "skip"


@dataclass(frozen=True)
class Mask(Schedule):
    """An explicit list of decisions: `"C"` computes, `"s"` skips, one letter per evaluation.

    A run with another number of evaluations is an error: a short mask must not skip (or compute) the rest
    silently.
    """

    letters: str

    def __post_init__(self) -> None:
        is_valid = len(self.letters) > 0 and set(self.letters) <= {"C", "s"}
        require(is_valid, "Mask.letters", self.letters, "C and s, as 'CCsCs'")

    def begin(self, num_evaluations: int, times: Sequence[float] = ()) -> int:
        """Check the length against N."""
        del times
        check_letters(self.letters, num_evaluations, "Mask.letters")
        return num_evaluations

    def plan(self, state: int, evaluation: int) -> Plan:
        """What the letter says."""
        return "compute" if evaluation > state or self.letters[evaluation - 1] == "C" else "skip"
