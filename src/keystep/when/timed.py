"""Schedules in the scheduler's timesteps (1000 = noise, 0 = video in most models) instead of evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from keystep.errors import require
from keystep.when.controller import Plan, Schedule

Times = tuple[float, ...]  # the state: the timestep of each evaluation
SCALE = 1000  # timesteps of training in every model whose timesteps have such a scale


class TimedSchedule(Schedule):
    """Base of schedules that look at timesteps; without any they compute.

    Where a scheduler's timesteps are not on a scale of 0 to 1000 (Cosmos 1 has logarithms of the noise,
    Cosmos 2 noise of up to 80 times 1000), each evaluation has the timestep of its place in an even schedule.
    """

    needs_time = True

    def begin(self, num_evaluations: int, times: Sequence[float] = ()) -> Times:
        """The state is the timesteps."""
        given = tuple(times[:num_evaluations])
        if not given or (min(given) >= 0 and 1 < max(given) <= SCALE):
            return given
        return tuple(SCALE * (1 - k / num_evaluations) for k in range(num_evaluations))


@dataclass(frozen=True)
class Window(TimedSchedule):
    """Inside a window of timesteps compute one evaluation of `period`, outside of it all.

    Attributes:
        period: evaluations 1, 1 + period, 1 + 2 period ... are the computed ones, counted from the begin of
            the run (higher = fewer computed).
        above, below: the window, both ends excluded.
    """

    period: int
    above: float
    below: float

    def __post_init__(self) -> None:
        require(self.period >= 1, "Window.period", self.period, "an interval >= 1")
        require(self.above < self.below, "Window.below", self.below, f"a timestep beyond above={self.above}")

    def plan(self, state: Times, evaluation: int) -> Plan:
        """Skip inside the window, except at the phase."""
        if evaluation > len(state) or (evaluation - 1) % self.period == 0:
            return "compute"
        return "skip" if self.above < state[evaluation - 1] < self.below else "compute"


@dataclass(frozen=True)
class After(TimedSchedule):
    """Compute at the given timesteps and skip a few evaluations after each; elsewhere compute.

    Attributes:
        at: timesteps; the evaluation nearest to each is meant.
        num_skips: evaluations skipped after each, up to the next one of them.
    """

    at: tuple[float, ...]
    num_skips: int

    def __post_init__(self) -> None:
        require(len(self.at) > 0, "After.at", self.at, "one or more timesteps")
        require(self.num_skips >= 1, "After.num_skips", self.num_skips, "evaluations >= 1")

    def plan(self, state: Times, evaluation: int) -> Plan:
        """Skip shortly after a meant evaluation."""
        if evaluation > len(state):
            return "compute"
        meant = {min(range(len(state)), key=lambda i: abs(state[i] - time)) + 1 for time in self.at}
        before = range(evaluation - self.num_skips, evaluation)
        return "skip" if evaluation not in meant and meant.intersection(before) else "compute"
