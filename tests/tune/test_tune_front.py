"""The front of what was tried, and the point that is chosen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystep.tune import Score, Tried, choose, find_front


def tried(*points: tuple[float, float]) -> list[Tried]:
    return [Tried(k, {"x": k}, Score(c, p, p - 1), p) for k, (c, p) in enumerate(points)]


POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)


@given(POINTS)
def test_the_front_is_all_that_nothing_beats(points: list[tuple[float, float]]) -> None:
    everything = tried(*points)
    front = find_front(everything)

    def beats(a: Tried, b: Tried) -> bool:
        as_good = a.score.compute <= b.score.compute and a.likeness >= b.likeness
        return as_good and (a.score.compute, a.likeness) != (b.score.compute, b.likeness)

    unbeaten = {(t.score.compute, t.likeness) for t in everything if not any(beats(o, t) for o in everything)}
    assert [(t.score.compute, t.likeness) for t in front] == sorted(unbeaten)


def test_what_is_chosen() -> None:
    front = find_front(tried((0.2, 20), (0.3, 30), (0.6, 33), (0.9, 35), (1.0, 100), (0.5, 21)))
    assert len(front) == 5
    assert choose(front).score.compute == 0.3, "the bend; what skips nothing does not bend it"
    assert choose(front, at_psnr=31).score.compute == 0.6
    assert choose(front, at_compute=0.55).score.compute == 0.3
    assert choose(front, at_psnr=20, at_compute=0.5).score.compute == 0.2
    with pytest.raises(
        ValueError, match=r"--at-compute 0.1: .* there is 20.0 dB .* 0.200 to 100.0 dB at 1.0"
    ):
        choose(front, at_compute=0.1)
    with pytest.raises(ValueError, match="--at-psnr 36, --at-compute 0.9"):
        choose(front, at_psnr=36, at_compute=0.9)


def test_a_front_of_one() -> None:
    (only,) = find_front(tried((1.0, 100.0)))
    assert choose([only]) is only
