"""AdaCache codebooks for models without published ones: thresholds that reach the paper's compute ratios.

    python -m bench.codebooks

The paper (arXiv 2411.02397, tables 1 and 2) gives compute for Latte and Open-Sora-Plan, from which the mean
number of computed evaluations follows, but no thresholds. Here the thresholds of Open-Sora's books, their
rates scaled to the length of the run, are multiplied by one factor until a simulated run computes as often
as the paper says.

What is simulated is the measured distance: in public logs of Open-Sora (53 measurements in evaluations 11 to
28 of 30) its mean is 0.19 times the gap to the power of 0.48. How much larger it is early in the run, and its
scatter, are fitted to the counts of the published books: 12.4 and 20.4 of 30, of which the fit gives 11.3 and
21.5. That Latte and Open-Sora-Plan change as Open-Sora does is an assumption: count on your own weights, and
multiply the thresholds (`codebook={...}`).
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from keystep.methods.adacache import BOOKS, Book, scale
from keystep.when import Codebook

SIZE, GROWTH = 0.19, 0.48  # of the distance with the gap
PUBLISHED = {"fast": 12.4, "slow": 20.4}  # computed evaluations of 30 on Open-Sora
NUM_RUNS = 400
NUM_HALVINGS = 12


@dataclass(frozen=True)
class Target:
    """What a book should reach: the share of evaluations computed, from the paper's FLOPs."""

    model: str
    book: str
    num_evaluations: int
    share: float


TARGETS = (
    Target("latte", "fast", 50, 14.7 / 50),
    Target("latte", "slow", 50, 29.4 / 50),
    # 150 steps of PNDM are 159 evaluations
    Target("opensora-plan", "fast", 159, 40.9 / 150),
    Target("opensora-plan", "slow", 159, 62.1 / 150),
)


@dataclass(frozen=True)
class Distances:
    """How far apart features are after a gap: around `SIZE * gap ** GROWTH`, larger early in the run."""

    early: float  # how much larger at the begin; falls with the square of what is left of the run
    scatter: float  # standard deviation of the logarithm

    def draw(self, gap: float, progress: float, chance: random.Random) -> float:
        """One measured distance; `gap` in thirtieths of the run, `progress` from 0 to 1."""
        mean = SIZE * gap**GROWTH * (1 + self.early * (1 - progress) ** 2)
        return mean * math.exp(chance.gauss(-(self.scatter**2) / 2, self.scatter))


def multiply(book: Book, factor: float) -> Book:
    """The book with all thresholds times a factor."""
    return replace(book, entries=tuple((threshold * factor, rate) for threshold, rate in book.entries))


def count(book: Book, distances: Distances) -> float:
    """Mean number of computed evaluations of simulated runs, decided by the real controller."""
    chance, total = random.Random(0), 0
    when = Codebook(book.entries, book.otherwise)
    for _ in range(NUM_RUNS):
        state, last = when.begin(book.native), 0
        for evaluation in range(1, book.native + 1):
            if when.plan(state, evaluation) == "skip":
                continue
            gap = (evaluation - last) * 30 / book.native
            distance = distances.draw(gap, evaluation / book.native, chance)
            measured = {when.distance.name: distance} if last else {}
            state, last = when.update(state, evaluation, True, measured), evaluation
            total += 1
    return total / NUM_RUNS


def bisect(rises: Callable[[float], float], wanted: float, low: float, high: float) -> float:
    """Where a rising function reaches a value, on a logarithmic scale."""
    for _ in range(NUM_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if rises(middle) < wanted else (low, middle)
    return math.sqrt(low * high)


def fit() -> Distances:
    """The distances with which the published books give their published counts."""
    grid = itertools.product(range(25), range(1, 19))
    candidates = [Distances(early / 4, scatter / 20) for early, scatter in grid]

    def error(distances: Distances) -> float:
        return sum((count(BOOKS[name], distances) - wanted) ** 2 for name, wanted in PUBLISHED.items())

    return min(candidates, key=error)


def main() -> None:
    distances = fit()
    print(distances, {name: round(count(BOOKS[name], distances), 1) for name in PUBLISHED})
    for target in TARGETS:
        book, wanted = (
            scale(BOOKS[target.book], target.num_evaluations),
            target.share * target.num_evaluations,
        )
        factor = bisect(lambda f, b=book: -count(multiply(b, f), distances), -wanted, 0.05, 20.0)
        found = multiply(book, factor)
        entries = ", ".join(f"({threshold:.4f}, {rate})" for threshold, rate in found.entries)
        counts = f"{count(found, distances):.1f} of {wanted:.1f}"
        print(f"{target.model} {target.book}: {counts}; x {factor:.2f}: {entries}; {found.window}")


if __name__ == "__main__":
    main()
