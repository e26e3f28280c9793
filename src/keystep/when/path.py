"""Where along a run computed evaluations do most good: a cost for every gap, and the best ones for a budget.

An error of the forecast early in a run moves everything that follows: as data is only `1 - s` of a latent
with noise share s, it is amplified by about 1 / (1 - s). How far forecasts err over a gap was measured on two
small trained models of different kinds (development prompts, 30 evaluations), and one path fits both: u(s),
of which a gap costs the square of its step. Its later part was then moved by what real runs gave
(bench/LOG.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# (1 - s, u): linear in log(1 - s + SHIFT) between them.
POINTS = (
    (0.0, 0.0), (0.005, 0.07), (0.01, 0.166), (0.02, 0.292), (0.056, 0.52), (0.176, 0.715), (0.596, 0.885),
    (1.0, 1.0),
)  # fmt: skip
SHIFT = 0.004
END = 1.2  # what is left of the path behind the last computed evaluation counts so many times
LONGEST = 0.5  # of the run, a gap


def walk(share: float) -> float:
    """u at a share of noise: 0 at pure noise, 1 without any."""
    place = math.log(1.0 - share + SHIFT)
    for (x0, u0), (x1, u1) in zip(POINTS, POINTS[1:], strict=False):
        low, high = math.log(x0 + SHIFT), math.log(x1 + SHIFT)
        if place <= high:
            return u0 + (u1 - u0) * (place - low) / (high - low)
    return 1.0


@dataclass(frozen=True)
class Route:
    """The best continuation from each evaluation, for each number of computed ones.

    Attributes:
        path: u at each evaluation.
        costs: [k][m]: cost of all gaps behind evaluation k (from 0), itself computed, with m more computed;
            infinite where there are not so many.
        nexts: [k][m]: the next computed one; N where there is none.
    """

    path: NDArray[np.float64]
    costs: NDArray[np.float64]
    nexts: NDArray[np.int64]

    def follow(self, first: int, more: int) -> list[int]:
        """The computed evaluations from `first` on, with `more` after it."""
        computed = [first]
        for left in range(more, 0, -1):
            computed.append(int(self.nexts[computed[-1], left]))
        return computed


def gap_cost(path: Any, begin: int, end: Any) -> Any:
    """Of computing `begin` and `end` (or each of several) and nothing between: neighbours cost nothing."""
    length = end - begin
    return ((path[end] - path[begin]) * (1.0 - 1.0 / length**2)) ** 2


@lru_cache(maxsize=32)
def plan_route(shares: tuple[float, ...], most: int) -> Route:
    """Plan a run backwards, by dynamic programming.

    Args:
        shares: of noise at each evaluation, falling.
        most: computed evaluations after the first one, at most.
    """
    num = len(shares)
    path = np.array([walk(share) for share in shares])
    longest = max(2, math.ceil(LONGEST * num))
    costs = np.full((num, most + 1), np.inf)
    nexts = np.full((num, most + 1), num)
    costs[:, 0] = np.where(np.arange(num) == num - 1, 0.0, (END * (1.0 - path)) ** 2)
    for k in range(num - 2, -1, -1):
        ends = np.arange(k + 1, min(num, k + longest + 1))
        totals = gap_cost(path, k, ends)[:, None] + costs[ends, :-1]
        best = totals.argmin(axis=0)
        costs[k, 1:] = totals[best, np.arange(most)]
        nexts[k, 1:] = np.where(np.isfinite(costs[k, 1:]), ends[best], num)
    return Route(path, costs, nexts)
