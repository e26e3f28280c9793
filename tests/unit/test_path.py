"""The route that costs least, and the controllers that follow it."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from keystep.when import ErrorControl, Paced
from keystep.when.control import CORRECTION, FORECAST_ERROR, amplified, expected_psnr, foreseen
from keystep.when.path import END, gap_cost, plan_route, walk


def shares(num: int, shift: float = 7.5) -> tuple[float, ...]:
    even = [1.0 - k / num for k in range(num)]
    return tuple(shift * s / (1 + (shift - 1) * s) for s in even)


def test_walk_rises_from_noise_to_data() -> None:
    path = [walk(share) for share in shares(50)] + [walk(0.0)]
    assert path[0] == pytest.approx(0.0) and path[-1] == pytest.approx(1.0)
    assert all(later > earlier for earlier, later in zip(path, path[1:], strict=False))


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_the_route_is_the_cheapest_of_all(count: int) -> None:
    levels = shares(9)
    path = [walk(share) for share in levels]

    def cost(stops: tuple[int, ...]) -> float:
        gaps = sum(gap_cost(path, a, b) for a, b in zip(stops, stops[1:], strict=False))
        return gaps + (0.0 if stops[-1] == 8 else (END * (1 - path[stops[-1]])) ** 2)

    cheapest = min(cost((0, *rest)) for rest in combinations(range(1, 9), count - 1))
    route = plan_route(levels, 8)
    stops = route.follow(0, count - 1)
    assert len(stops) == count
    assert route.costs[0][count - 1] == pytest.approx(cost(tuple(stops))) == pytest.approx(cheapest, rel=0.05)


@pytest.mark.parametrize("num", [1, 2, 5, 20, 100])
def test_paced_meets_its_budget(num: int) -> None:
    for compute in (0.2, 0.4, 1.0):
        state = Paced(compute).begin(num, shares(num))
        assert len(state) == max(1, round(compute * num)) and min(state) == 1


def test_paced_is_dense_where_noise_is() -> None:
    computed = sorted(Paced(1 / 3).begin(30, shares(30)))
    assert computed[4] - computed[0] < computed[-1] - computed[-3]


def run(control: ErrorControl, size: float, num: int = 30, calm_below: float = 0.0) -> list[int]:
    """Computed evaluations where every gap moves the latent by `size` times its own step, amplified; by a
    tenth of that at shares of noise below `calm_below`.
    """
    levels = shares(num)
    path = [walk(share) for share in levels]
    state, computed = control.begin(num, levels), []
    for evaluation in range(1, num + 1):
        is_computed = control.plan(state, evaluation) == "compute"
        measured = {}
        if is_computed:
            if computed:
                own = size / 10 if levels[evaluation - 1] < calm_below else size
                moved = (own**2 * gap_cost(path, computed[-1] - 1, evaluation - 1)) ** 0.5
                measured[CORRECTION.name] = moved * (1.0 - levels[evaluation - 1] + 0.05)
            computed.append(evaluation)
        state = control.update(state, evaluation, is_computed, measured)
    return computed


def test_videos_that_err_more_are_computed_more_often() -> None:
    calm, restless = run(ErrorControl(0.05), 0.05), run(ErrorControl(0.05), 0.5)
    assert len(calm) < len(restless)


def test_tighter_tolerances_are_computed_more_often() -> None:
    counts = [len(run(ErrorControl(tolerance), 0.2)) for tolerance in (0.2, 0.05, 0.01)]
    assert counts == sorted(counts) and counts[0] < counts[-1]


def test_a_bad_begin_is_forgotten_slowly() -> None:
    def count_late(*memory: float) -> int:
        return sum(k > 15 for k in run(ErrorControl(0.05, memory=memory), 0.5, calm_below=0.8))

    assert count_late(0.4, 0.4) <= count_late(0.4, 0.6) < count_late(0.4, 1.0)


def test_forecasts_that_were_not_used_tell_what_gaps_would_cost() -> None:
    """A video whose forecasts err from the first one on is never skipped early, however calm later."""

    def gaps(error: float) -> list[int]:
        control, levels, computed = ErrorControl(0.05), shares(30), []
        state = control.begin(30, levels)
        for evaluation in range(1, 31):
            is_computed = control.plan(state, evaluation) == "compute"
            computed += [evaluation] if is_computed else []
            measured = {FORECAST_ERROR.name: error} if is_computed and evaluation > 1 else {}
            state = control.update(state, evaluation, is_computed, measured)
        return [b - a for a, b in zip(computed, computed[1:], strict=False)]

    first_gaps = [next((k for k, gap in enumerate(gaps(error)) if gap > 1), 30) for error in (0.1, 1.0, 3.0)]
    assert first_gaps == sorted(first_gaps) and first_gaps[0] < first_gaps[1] < first_gaps[2]


def test_forecasts_that_err_as_planned_change_nothing() -> None:
    """The rate stays what it was expected to be, so the first gap comes where it came without them."""

    def first_gap(is_told: bool) -> int:
        control, levels = ErrorControl(0.05), shares(30)
        state = control.begin(30, levels)
        for k in range(30):
            if control.plan(state, k + 1) == "skip":
                return k
            measured = {}
            if k and is_told:
                step = walk(levels[k]) - walk(levels[k - 1])
                moved = control.expected**0.5 * step / amplified(1.0, levels[k])
                measured[FORECAST_ERROR.name] = moved / foreseen(1.0, levels[k - 1], levels[k])
            state = control.update(state, k + 1, True, measured)
        raise AssertionError("everything was computed")

    assert first_gap(is_told=True) == first_gap(is_told=False)


@pytest.mark.parametrize("memory", [0.4, (0.4,), (0.4, 1.5), (0.4, 0.6, 0.8)])
def test_a_memory_is_two_parts(memory: Any) -> None:
    with pytest.raises(ValueError, match="ErrorControl.memory: given .*two numbers"):
        ErrorControl(0.05, memory=memory)


def test_what_a_forecast_error_would_have_asked_for() -> None:
    assert foreseen(0.4, 0.5, 0.5) == foreseen(0.4, 0.0, 0.0) == 0.0  # no step, nothing taken in
    assert foreseen(0.4, 0.5, 0.25) == pytest.approx(0.1)
    assert foreseen(0.4, 0.5, 0.0) == pytest.approx(0.2)  # the last step takes in all of it


def test_a_steady_video_meets_its_tolerance() -> None:
    levels, control = shares(30), ErrorControl(0.03)
    path = [walk(share) for share in levels]
    computed = run(control, 0.17)
    spent = sum(0.17**2 * gap_cost(path, a - 1, b - 1) for a, b in zip(computed, computed[1:], strict=False))
    assert spent**0.5 <= 0.03


def test_amplification_and_decibels() -> None:
    assert amplified(0.1, 1.0) > amplified(0.1, 0.5) > amplified(0.1, 0.0)
    assert expected_psnr(0.01) > expected_psnr(0.1)
