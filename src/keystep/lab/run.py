"""A run of the bench: models one after the other, the parts that fit each, everything into one book."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from keystep.lab import cache_dit, diffusers_hooks, grid, quality, robustness, solvers, speed
from keystep.lab.book import Book
from keystep.lab.contestant import FEWER_STEPS, QUALITY, ROBUSTNESS, SPEED, Bench, Contestant
from keystep.lab.measure import Watcher
from keystep.lab.shapes import NARROW

NUM_NARROW_PAIRS = 9  # narrow models are quick, and what is looked for there is small
PARTS = (QUALITY, SPEED, ROBUSTNESS)
# Whose contestants, by what the command line calls them.
RIVALS: dict[str, Callable[[], list[Contestant]]] = {
    FEWER_STEPS.replace(" ", "-"): solvers.fewer_steps,
    diffusers_hooks.DIFFUSERS: diffusers_hooks.hooks,
    cache_dit.CACHE_DIT: cache_dit.adapters,
}


@dataclass(frozen=True)
class Amount:
    """How much is measured.

    Attributes:
        num_steps: sampling steps of every plain video; None = each model's own number.
        num_prompts: of a trained model, the first so many.
        seeds: for each prompt.
        num_pairs: timed pairs of each contestant.
        has_converged: whether converged videos are made, which take as long as eight others.
        num_shown: prompts whose videos go into the page.
        limits_s: part -> begin no measurement after so many seconds of it on one model; no entry = no limit.
    """

    num_steps: int | None
    num_prompts: int
    seeds: tuple[int, ...]
    num_pairs: int
    has_converged: bool
    num_shown: int
    limits_s: Mapping[str, float]


# Together under five minutes for two shipped models, a narrow and a wide one.
QUICK_LIMITS_S = {QUALITY: 40.0, SPEED: 40.0, ROBUSTNESS: 12.0}
FULL = Amount(None, 32, (0, 1), 5, has_converged=True, num_shown=2, limits_s={})
QUICK = Amount(12, 1, (0,), 1, has_converged=False, num_shown=1, limits_s=QUICK_LIMITS_S)


class TimedWatcher:
    """Ends a part when its time is used up.

    Args:
        show: told which measurement begins.
        limit_s: seconds from now; None = no limit.

    Attributes:
        was_over: whether it ended something.
    """

    def __init__(self, show: Callable[[str], None], limit_s: float | None) -> None:
        self._show = show
        self._limit_s = limit_s
        self._start = time.perf_counter()
        self.was_over = False

    def begin(self, label: str) -> None:
        """Show which measurement begins."""
        self._show(label)

    def is_over(self) -> bool:
        """Whether the time is used up."""
        if self._limit_s is not None and time.perf_counter() - self._start > self._limit_s:
            self.was_over = True
        return self.was_over


def choose_contestants(methods: Sequence[str], rivals: Sequence[str]) -> tuple[list[Contestant], list[str]]:
    """Our methods by name (none given = all) and rivals by source; with remarks on those that are missing."""
    own = [c for c in grid.own_methods() if not methods or c.name.method in methods]
    notes = []
    if cache_dit.CACHE_DIT in rivals and not cache_dit.is_installed():
        notes.append(cache_dit.MISSING)
        rivals = [name for name in rivals if name != cache_dit.CACHE_DIT]
    chosen = [*own, *(contestant for name in rivals for contestant in RIVALS[name]())]
    # what one gets without turning a knob comes first, should the time run out
    return sorted(chosen, key=lambda contestant: not contestant.is_default), notes


def run_part(
    part: str,
    bench: Bench,
    contestants: Sequence[Contestant],
    amount: Amount,
    book: Book,
    watcher: Watcher,
) -> None:
    """Measure one part on one model."""
    defaults = [contestant for contestant in contestants if contestant.is_default]
    if part == QUALITY:
        prompts = bench.subject.prompts[: amount.num_prompts]
        items = [(prompt, seed) for prompt in prompts for seed in amount.seeds]
        quality.measure_quality(
            bench,
            contestants,
            items,
            book,
            watcher,
            amount.has_converged,
            amount.num_shown * len(amount.seeds),
        )
    elif part == SPEED:
        is_narrow = bench.subject.name.endswith(NARROW)
        timed = [*([] if is_narrow else defaults), *grid.never_skipping()]
        num_pairs = NUM_NARROW_PAIRS if is_narrow else amount.num_pairs
        speed.measure_speed(bench, timed, num_pairs, book, watcher)
    else:
        robustness.measure_robustness(bench, defaults, book, watcher)
