"""Controllers: pure functions of (state, evaluation, measurements)."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystep.when import Always, Codebook, Every, Mask, MotionRegularisation
from keystep.when.schedule import resolve


def letters(controller: object, steps: int) -> str:
    state = controller.begin(steps)
    return "".join("C" if controller.plan(state, k) == "compute" else "s" for k in range(1, steps + 1))


@pytest.mark.parametrize(
    ("controller", "expected"),
    [
        (Always(), "CCCCCCCCCC"),
        (Every(1), "CCCCCCCCCC"),
        (Every(2), "sCsCsCsCsC"),
        (Every(2, phase=1), "CsCsCsCsCs"),
        (Every(2, start=4), "CCCCsCsCsC"),
        (Every(3, start=4, phase=1), "CCCCssCssC"),
        (Every(3, start=4, phase=7), "CCCCssCssC"),
        (Every(5, start=3, stop=8), "CCssCsssCC"),
        (Every(5, start=0.3, stop=0.8), "CCssCsssCC"),
        (Every(3, start=2, is_last_computed=True), "CsCssCssCC"),
        (Every(20, start=2), "Csssssssss"),
        (Every(2, start=11), "CCCCCCCCCC"),
        (Mask("CCsCssCsCC"), "CCsCssCsCC"),
    ],
)
def test_schedules(controller: object, expected: str) -> None:
    assert letters(controller, 10) == expected
    assert controller.signals == () and controller.asks is False
    state = controller.begin(10)
    assert controller.update(state, 3, True, {"x": 1.0}) == state
    with pytest.raises(AssertionError):
        controller.decide(state, 3, {})


@given(st.floats(0, 1), st.integers(1, 400))
def test_fractions_resolve_into_the_run(fraction: float, steps: int) -> None:
    assert 0 <= resolve(fraction, steps) <= steps
    assert resolve(7, steps) == 7


def test_beyond_the_mask_nothing_is_skipped() -> None:
    assert Mask("Cs").plan(2, 3) == "compute"


def test_codebook_state_is_threaded_not_kept() -> None:
    book = Codebook(((0.1, 4), (0.2, 2)))
    start = book.begin(20)
    one = book.update(start, 2, True, {"distance": 0.05})
    assert (one.computed, one.rate) == (2, 4) and start == book.begin(20)
    assert book.update(one, 3, False, {}) == one
    assert book.update(one, 6, True, {"distance": 0.5}).rate == 2, "0.5 over a gap of 4 is 0.125"
    assert book.update(one, 6, True, {}).rate == 1, "nothing measured: compute the next"
    with pytest.raises(AssertionError):
        book.decide(start, 3, {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        book.otherwise = 5


def test_codebook_with_motion() -> None:
    book = Codebook(((0.1, 4), (0.2, 2)), moreg=MotionRegularisation(2, 10))
    assert [signal.name for signal in book.signals] == ["distance", "motion"]
    state = book.update(book.begin(20), 3, True, {"distance": 0.05, "motion": 0.385})
    assert (state.rate, state.level) == (4, 1.0)
    state = book.update(book.begin(20), 3, True, {"distance": 0.05, "motion": 0.5})
    assert state.rate == 1 and state.level > 8
    assert book.update(book.begin(20), 3, True, {"distance": 0.05}).rate == 4, "motion unknown: left as it is"
