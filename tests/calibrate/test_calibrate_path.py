"""The lexicographic minimax path, MagCache's decisions, stretched ratios: by hand and by brute force."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystep.calibrate import edges_of
from keystep.methods.magcache import decide, stretch
from keystep.methods.static import find_path, name_edge, read_edge


def test_edges_are_stretches_between_two_computed_evaluations() -> None:
    assert edges_of(5, 3) == [(1, 3), (2, 4), (3, 5), (1, 4), (2, 5)]
    assert edges_of(2, 6) == []
    assert read_edge(name_edge((3, 17))) == (3, 17)


def test_the_path_by_hand() -> None:
    """Six evaluations; four computed. 1-2-5-6 has one bad edge, 1-3-5-6 two fair ones."""
    errors = {(1, 3): 2.0, (2, 4): 4.0, (3, 5): 3.0, (4, 6): 9.0, (1, 4): 6.0, (2, 5): 5.0, (3, 6): 8.0}
    assert find_path(errors, 6, 6) == [1, 2, 3, 4, 5, 6]
    assert find_path(errors, 6, 5) == [1, 3, 4, 5, 6]
    assert find_path(errors, 6, 4) == [1, 3, 5, 6], "3 and 2 are better than 5 alone"
    assert find_path(errors, 6, 3) == [1, 3, 6], "8 and 2 are better than 9 and 6"
    assert find_path(errors, 6, 1) == [1, 3, 6], "no path has fewer"
    assert find_path({}, 1, 1) == [1]


def test_ties_in_the_worst_edge_are_broken_by_the_second_worst() -> None:
    errors = {(1, 3): 5.5, (2, 4): 5.0, (3, 5): 6.0, (4, 6): 2.0, (5, 7): 3.0}
    # five computed leave two out: beside 2-4, which every good path has, 4-6 or 5-7
    assert find_path(errors, 7, 5) == [1, 2, 4, 6, 7]
    assert find_path(errors | {(4, 6): 3.5}, 7, 5) == [1, 2, 4, 5, 7]


@given(
    num_evaluations=st.integers(3, 9),
    max_gap=st.integers(2, 4),
    seed=st.integers(0, 10_000),
    share=st.floats(0.1, 1.0),
)
def test_no_path_is_better(num_evaluations: int, max_gap: int, seed: int, share: float) -> None:
    """Against all paths, one by one."""
    edges = edges_of(num_evaluations, max_gap)
    errors = {edge: float((seed * (i + 3) * 7919) % 13) for i, edge in enumerate(edges)}
    weight = {(k, k + 1): 0.0 for k in range(1, num_evaluations)} | errors
    num_computed = max(1, round(share * num_evaluations))

    def cost(path: tuple[int, ...]) -> list[float]:
        return sorted((weight[edge] for edge in pairwise(path)), reverse=True)

    def paths(count: int) -> list[tuple[int, ...]]:
        inner = combinations(range(2, num_evaluations), count - 2)
        ways = [(1, *chosen, num_evaluations) for chosen in inner]
        return [path for path in ways if all(edge in weight for edge in pairwise(path))]

    by_count = {count: paths(count) for count in range(2, num_evaluations + 1)}
    count = next(c for c in range(max(2, num_computed), num_evaluations + 1) if by_count[c])
    found = tuple(find_path(errors, num_evaluations, num_computed))
    assert found in by_count[count]
    assert cost(found) == min(map(cost, by_count[count]))


def test_magcache_decisions_by_hand() -> None:
    # products .98, .9604 -> .02 + .0396 = .0596; then .941 adds .0588: too much, computed, begun anew
    assert decide([1.0, 0.98, 0.98, 0.98, 0.98, 0.98], 0.06, 9, 1) == "CssCss"
    assert decide([1.0, 0.98, 0.98, 0.98, 0.98, 0.98], 0.06, 1, 1) == "CsCsCs"
    assert decide([1.0, 0.98, 0.98, 0.98, 0.98, 0.98], 0.06, 9, 4) == "CCCCss"
    assert decide([1.0] * 6, 0.0, 3, 0) == "CsssCs"
    assert decide([1.0, 1.02, 0.98, 1.02, 0.98], 0.045, 9, 1) == "Cssss", "the product comes back to 1"
    assert decide([1.0, 1.5, 0.5], 0.06, 9, 1) == "CCC"


def test_ratios_are_stretched_by_the_nearest_place() -> None:
    assert stretch([1.0, 2.0, 3.0], 3) == [1.0, 2.0, 3.0]
    assert stretch([1.0, 2.0, 3.0], 6) == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    assert stretch([1.0, 2.0, 3.0, 4.0, 5.0], 3) == [1.0, 3.0, 5.0]
    assert stretch([1.0, 2.0], 1) == [1.0]
    assert stretch([7.0], 4) == [7.0] * 4


@pytest.mark.parametrize("steps", [1, 2, 5, 30, 100])
def test_the_first_evaluation_is_always_computed(steps: int) -> None:
    assert decide([1.0] * steps, 1.0, 3, 0)[0] == "C"
