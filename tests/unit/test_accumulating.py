"""Controllers that add up and controllers with limits, by hand-made numbers."""

from __future__ import annotations

from typing import Any

import pytest

from keystep.what import AttentionInput, PrefixResidual, StackInput
from keystep.when import Accumulate, After, Below, PredictedChange, RelativeChange, Window
from keystep.when.rate import LATENT, OUTPUT, SIZE, STEP

INPUT = RelativeChange(AttentionInput(), since="previous")
FIRST = RelativeChange(PrefixResidual())
NAN = float("nan")


def play(controller: Any, measured: list[dict[str, float]]) -> str:
    """Decisions when evaluation k measures `measured[k - 1]`."""
    state, letters = controller.begin(len(measured)), ""
    for k, values in enumerate(measured, start=1):
        action = controller.plan(state, k)
        if action == "ask":
            action = controller.decide(state, k, values)
        state = controller.update(state, k, action == "compute", values)
        letters += "C" if action == "compute" else "s"
    return letters


def distances(*values: float) -> list[dict[str, float]]:
    return [{}, *({"distance": value} for value in values)]


def test_accumulate_sums_over_skips_and_begins_anew() -> None:
    # sums .1, .2, .3001: computed; .2, .25, .35: computed; the last one is computed anyway
    changes = distances(0.1, 0.1, 0.1001, 0.2, 0.05, 0.1, 0.0)
    assert play(Accumulate(0.3, INPUT), changes) == "CssCssCC"
    assert play(Accumulate(0.3, INPUT, num_last=0), changes) == "CssCssCs"
    assert play(Accumulate(0.3, INPUT, max_consecutive=1), changes) == "CsCsCsCC"
    assert play(Accumulate(0.3, INPUT, num_first=0.5), changes) == "CCCCssCC"
    assert play(Accumulate(0.0, INPUT), changes) == "CCCCCCCC"


def test_accumulate_with_a_polynomial() -> None:
    """2 x^2 + x + .1, highest power first."""
    when = Accumulate(0.5, INPUT, (2.0, 1.0, 0.1))
    assert when.rescale(0.2) == pytest.approx(0.38)
    # .38; .38 + .22 = .60 is enough; .22; .44; .66 is enough
    assert play(when, distances(0.2, 0.1, 0.1, 0.1, 0.1, 9.0)) == "CsCssCC"


def test_accumulate_computes_what_is_no_number() -> None:
    assert play(Accumulate(1.0, INPUT), distances(0.1, NAN, 0.1, float("inf"), 0.1, 0.1)) == "CsCsCsC"


def test_accumulate_with_a_change_taken_off() -> None:
    """|.3 - .1| = .2, |.1 - .2| = .1: three evaluations reach .5."""
    when = Accumulate(0.45, INPUT, minus=RelativeChange(StackInput(), since="previous", name="input"))
    assert [signal.name for signal in when.signals] == ["distance", "input"]
    pairs = [(0.3, 0.1), (0.1, 0.2), (0.5, 0.2), (0.3, 0.1), (0.3, 0.1)]
    assert play(when, [{}, *({"distance": a, "input": b} for a, b in pairs)]) == "CssCsC"


def test_below_without_limits() -> None:
    changes = distances(0.1, 0.3, 0.1, 0.1, 0.1, 0.3, 0.1)
    assert play(Below(0.2, FIRST), changes) == "CsCsssCC"
    assert play(Below(0.2, FIRST, num_last=0), changes) == "CsCsssCs"
    assert play(Below(0.2, FIRST, num_first=4), changes) == "CCCCssCC"


def test_below_with_limits() -> None:
    calm = distances(*[0.1] * 9)
    assert play(Below(0.2, FIRST, num_last=0), calm) == "Csssssssss"
    assert play(Below(0.2, FIRST, num_last=0, max_consecutive=2), calm) == "CssCssCssC"
    assert play(Below(0.2, FIRST, num_last=0, max_consecutive=0), calm) == "CCCCCCCCCC"
    assert play(Below(0.2, FIRST, num_last=0, max_skips=4), calm) == "CssssCCCCC"
    assert play(Below(0.2, FIRST, num_last=0, mask="CsCssCssss"), calm) == "CsCssCssss"
    # changes that were asked for: .1 each; three of them are below .35, the fourth makes .4
    assert play(Below(0.2, FIRST, num_last=0, max_total=0.35), calm) == "CssssCCCCC"
    # a change that was too large counts, too; what a limit or the mask computes was not asked for
    restless = distances(0.1, 0.3, 0.1, 0.1, 0.1)
    assert play(Below(0.2, FIRST, num_last=0, max_total=0.45), restless) == "CsCsCC"
    assert play(Below(0.2, FIRST, num_last=0, max_total=0.15, mask="CCCsss"), restless) == "CCCssC"


def test_a_mask_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"Below.mask: given 'CCs', allowed: 5 letters"):
        Below(0.2, FIRST, mask="CCs").begin(5)


def numbers(step: float, latent: float = NAN, output: float = NAN, size: float = NAN) -> dict[str, float]:
    values = {STEP.name: step, LATENT.name: latent, OUTPUT.name: output, SIZE.name: size}
    return {name: value for name, value in values.items() if value == value}


def test_predicted_change_by_hand() -> None:
    """rate 3 = .6 / .2, size 2: a latent step of .2 foretells a relative change of .3."""
    when = PredictedChange(0.7)
    start = when.begin(9)
    one = when.update(start, 1, True, {SIZE.name: 2.0})
    assert when.plan(one, 2) == "compute" and (one.rate, one.size) == (None, 2.0)
    two = when.update(one, 2, True, numbers(0.2, 0.2, 0.6, 2.0))
    assert two.rate == pytest.approx(3.0) and when.plan(two, 3) == "ask"
    assert when.decide(two, 3, numbers(0.2, 0.2)) == "skip"
    three = when.update(two, 3, False, numbers(0.2, 0.2))
    assert three.total == pytest.approx(0.3)
    four = when.update(three, 4, False, numbers(0.2, 0.4))
    assert four.total == pytest.approx(0.6) and when.decide(four, 5, numbers(0.1)) == "compute"
    # computed: the output changed by .5 while the latent changed by .5 since evaluation 2; size 4
    five = when.update(four, 5, True, numbers(0.1, 0.5, 0.5, 4.0))
    assert (five.rate, five.size, five.total) == (1.0, 4.0, 0.0)
    assert when.decide(five, 6, numbers(2.7)) == "skip" and when.decide(five, 6, numbers(2.8)) == "compute"
    assert when.plan(five, 9) == "compute", "the last one"
    assert when.decide(five, 6, numbers(0.0) | {STEP.name: NAN}) == "compute"


def test_predicted_change_forgets_another_expert() -> None:
    when = PredictedChange(0.7)
    known = when.update(when.begin(9), 2, True, numbers(0.2, 0.2, 0.6, 2.0))
    assert when.plan(when.update(known, 3, True, {}), 4) == "compute"


def test_predicted_change_of_an_output_that_stands_still() -> None:
    when = PredictedChange(0.7)
    still = when.update(when.begin(9), 2, True, numbers(0.2, 0.2, 0.0, 2.0))
    assert still.rate == 0.0 and when.decide(still, 3, numbers(5.0)) == "skip"


def letters(schedule: Any, times: list[float]) -> str:
    state = schedule.begin(len(times), times)
    return "".join("C" if schedule.plan(state, k) == "compute" else "s" for k in range(1, len(times) + 1))


def test_window_of_timesteps() -> None:
    times = [1000.0, 900.0, 800.0, 700.0, 600.0, 500.0, 400.0, 300.0]
    assert letters(Window(2, 350, 850), times) == "CCCsCsCC"
    assert letters(Window(3, 350, 850), times) == "CCsCssCC", "evaluations 1, 4 and 7 are computed"
    assert letters(Window(2, 400, 700), times) == "CCCCCsCC", "both ends are outside"
    assert letters(Window(1, 0, 2000), times) == "C" * 8
    assert letters(Window(2, 0, 2000), []) == ""
    assert Window(2, 0, 2000).plan((900.0,), 2) == "compute", "beyond the timesteps that are known"


@pytest.mark.parametrize("unit", [0.001, 80.0, -1.0])
def test_timesteps_on_another_scale_count_by_their_place_in_the_run(unit: float) -> None:
    """Shares of noise, noise of up to 80 times the video's, logarithms that go below zero."""
    times = [unit * (1000.0 - 125 * k) for k in range(8)]
    assert letters(Window(2, 350, 850), times) == letters(Window(2, 350, 850), [t / unit for t in times])
    assert letters(After((800,), 2), times) == "CCCssCCC"


def test_after_timesteps() -> None:
    times = [1000.0, 900.0, 800.0, 700.0, 600.0, 500.0, 400.0, 300.0]
    assert letters(After((800,), 2), times) == "CCCssCCC"
    assert letters(After((820, 480), 1), times) == "CCCsCCsC", "the nearest evaluation is meant"
    assert letters(After((900, 800), 3), times) == "CCCsssCC", "up to the next one of them"
    assert letters(After((300,), 2), times) == "C" * 8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Accumulate(-1.0, INPUT), "Accumulate.threshold: given -1.0"),
        (lambda: Accumulate(1.0, INPUT, ()), r"Accumulate.polynomial: given \(\)"),
        (lambda: Accumulate(1.0, INPUT, num_first=1.5), "Accumulate.num_first: given 1.5"),
        (lambda: Accumulate(1.0, INPUT, max_consecutive=-1), "Accumulate.max_consecutive: given -1"),
        (lambda: Below(0.1, FIRST, max_skips=-2), "Below.max_skips: given -2"),
        (lambda: Below(0.1, FIRST, mask="CxC"), "Below.mask: given 'CxC'"),
        (lambda: Below(0.1, FIRST, max_total=-0.1), "Below.max_total: given -0.1"),
        (lambda: PredictedChange(-0.1), "PredictedChange.threshold: given -0.1"),
        (lambda: Window(0, 1, 2), "Window.period: given 0"),
        (lambda: Window(2, 800, 100), "Window.below: given 100"),
        (lambda: After((), 2), r"After.at: given \(\)"),
        (lambda: After((5,), 0), "After.num_skips: given 0"),
    ],
)
def test_bad_values_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
