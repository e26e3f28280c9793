"""Budgets and tolerances: computed evaluations on the route that costs least, see `path.py`.

`Paced` meets a budget exactly and reads nothing. `ErrorControl` meets a tolerance: the corrections of the
latent, and forecasts that were not used, tell how large the errors of this video are against those the route
was planned with, and after every computed evaluation the rest of the run becomes as dense as that asks for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from keystep.errors import require
from keystep.what.site import Correction, Forecast
from keystep.when.controller import Plan, Schedule
from keystep.when.path import Route, gap_cost, plan_route
from keystep.when.signal import LatentShare, Signal

FORECAST_ERROR = LatentShare("forecast error", Forecast())
CORRECTION = LatentShare("correction", Correction())
FLOOR = 0.05  # keeps the amplification of an error finite at pure noise
DECIBELS = 24.2  # expected PSNR of a video whose estimated error is as large as its latent; docs/auto.md


def expected_psnr(error: float) -> float:
    """dB to the plain video that an estimated error stands for, on the models that ship; give or take 9 dB.

    A tenth of the error is 20 dB more. Fitted on 144 development videos of both, 7 to 20 of 30 evaluations
    computed: one standard deviation of the rest is 3.4 dB. On 384 held-out ones it is 4.3 dB, and 2.2 dB is
    to be added. Elsewhere it compares videos of one model, and does not foretell their PSNR.
    """
    return DECIBELS - 20.0 * math.log10(error)


def amplified(correction: float, share: float) -> float:
    """What a correction at a noise share does to the video, in units of the latent's size."""
    return correction / (1.0 - share + FLOOR)


def foreseen(error: float, before: float, share: float) -> float:
    """The correction that a forecast's error would have asked for, had the evaluation been skipped.

    Between two evaluations at noise shares `before` and `share` a sampler takes in 1 - share / before of the
    data, and forecasts are off by about half as much on the way as at the end.
    """
    return error * (1.0 - share / before) / 2 if before else 0.0


@dataclass(frozen=True)
class Paced(Schedule):
    """Compute a part of the evaluations, on the route that costs least for so many.

    Attributes:
        compute: part of the evaluations that is computed, above 0, up to 1; the number is rounded, and met.
    """

    compute: float
    needs_noise = True

    def __post_init__(self) -> None:
        require(0 < self.compute <= 1, "Paced.compute", self.compute, "a part above 0, up to 1")

    def begin(self, num_evaluations: int, times: Sequence[float] = ()) -> frozenset[int]:
        """The computed evaluations, 1-based; `times` are the shares of noise."""
        more = max(1, round(self.compute * num_evaluations)) - 1
        route = plan_route(tuple(times[:num_evaluations]), more)
        return frozenset(k + 1 for k in route.follow(0, more))

    def plan(self, state: frozenset[int], evaluation: int) -> Plan:
        """Compute what the route passes."""
        return "compute" if evaluation in state else "skip"


@dataclass(frozen=True)
class ControlState:
    """Where a run is.

    Attributes:
        shares: of noise at each evaluation.
        route: the plan of the whole run.
        next: evaluation (from 0) that is computed next.
        last: evaluation computed last; -1 before the first.
        planned: for each memory, cost that was planned for the gaps so far, the newest weighing most.
        spent: squared error that they turned out to have, weighed alike.
    """

    shares: tuple[float, ...]
    route: Route
    next: int = 0
    last: int = -1
    planned: tuple[float, ...] = (0.0, 0.0)
    spent: tuple[float, ...] = (0.0, 0.0)


@dataclass(frozen=True)
class ErrorControl:
    """Compute as many evaluations as the tolerance needs, judged by how far each gap moved the latent.

    Attributes:
        tolerance: estimated error of the video, relative to the latent (lower = more computed).
        expected: squared error for a planned cost of one, before anything was measured.
        weight: planned cost that the expectation weighs as much as.
        memory: how much of what was seen before still counts at the next computed evaluation, for two views
            (1 = all alike), of which the worse one counts: trouble is believed at once, calm slowly. With
            strong guidance forecasts err most at the begin, without any they err most at the end.
    """

    tolerance: float
    expected: float = 0.03
    weight: float = 0.02
    memory: tuple[float, float] = (0.4, 0.6)
    asks = False
    needs_time = False
    needs_noise = True

    def __post_init__(self) -> None:
        require(self.tolerance > 0, "ErrorControl.tolerance", self.tolerance, "an error above 0")
        require(self.expected > 0, "ErrorControl.expected", self.expected, "a squared error above 0")
        require(self.weight > 0, "ErrorControl.weight", self.weight, "a cost above 0")
        is_pair = isinstance(self.memory, tuple) and len(self.memory) == 2
        is_pair = is_pair and all(0 <= each <= 1 for each in self.memory)
        require(is_pair, "ErrorControl.memory", self.memory, "two numbers, each 0 to 1")

    @property
    def signals(self) -> tuple[Signal, ...]:
        """How far the latent was moved, and where nothing was skipped, how far the forecast was off."""
        return (CORRECTION, FORECAST_ERROR)

    def begin(self, num_evaluations: int, times: Sequence[float] = ()) -> ControlState:
        """The route; `times` are the shares of noise."""
        shares = tuple(times[:num_evaluations])
        return ControlState(shares, plan_route(shares, len(shares) - 1))

    def plan(self, state: ControlState, evaluation: int) -> Plan:
        """Compute where the last choice led to."""
        return "compute" if evaluation > state.next else "skip"

    def decide(self, state: ControlState, evaluation: int, measured: Mapping[str, float]) -> Plan:
        """Never asked."""
        raise AssertionError("the next computed evaluation is known before the forward")

    def update(
        self, state: ControlState, evaluation: int, is_computed: bool, measured: Mapping[str, float]
    ) -> ControlState:
        """After a computed evaluation note what its gap cost, and choose the next one."""
        if not is_computed:
            return state
        now = evaluation - 1
        moved = measured.get(CORRECTION.name, math.nan)
        off = measured.get(FORECAST_ERROR.name, math.nan)
        if state.last >= 0 and math.isfinite(moved):
            state = self._note(state, gap_cost(state.route.path, state.last, now), moved, now)
        elif state.last == now - 1 >= 0 and math.isfinite(off):
            step = state.route.path[now] - state.route.path[now - 1]
            state = self._note(state, step**2, foreseen(off, *state.shares[now - 1 : now + 1]), now)
        return replace(state, last=now, next=self._choose(state, now))

    def _note(self, state: ControlState, cost: float, moved: float, now: int) -> ControlState:
        error = amplified(moved, state.shares[now]) ** 2
        return replace(
            state,
            planned=tuple(m * old + cost for m, old in zip(self.memory, state.planned, strict=True)),
            spent=tuple(m * old + error for m, old in zip(self.memory, state.spent, strict=True)),
        )

    def _choose(self, state: ControlState, now: int) -> int:
        """The next evaluation, as close as on the shortest route that meets the tolerance from the begin.

        What is spent cannot be taken back: computing all the rest would not mend a bad begin.
        """
        rate = max(
            (self.expected * self.weight + spent) / (self.weight + planned)
            for planned, spent in zip(state.planned, state.spent, strict=True)
        )
        costs = state.route.costs[0].tolist()
        enough = (m for m, cost in enumerate(costs) if m and rate * cost <= self.tolerance**2)
        count = next(enough, len(costs) - 1)
        more = sum(k > now for k in state.route.follow(0, count))
        return int(state.route.nexts[now, min(more, len(state.shares) - 1 - now)])
