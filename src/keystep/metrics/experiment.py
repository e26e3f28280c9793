"""Measure methods against the plain pipeline, one prompt and seed at a time, all in one process.

Each method runs once while FLOPs are counted, which makes its video and warms everything up. Then come rounds
in which the plain pipeline and every method are timed in turns: machines are noisy, only ratios of neighbours
mean anything.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from keystep.metrics.generation import Generation, run_pipeline
from keystep.metrics.outcome import Outcome, TimedPair
from keystep.metrics.quality import Video, compare_videos

PLAIN = "plain"  # label of the reference


class Progress(Protocol):
    """Who wants to know how far an experiment is."""

    def begin_generation(self, label: str) -> None:
        """A generation begins; `label` says which."""

    def end_step(self, num_done: int, num_planned: int) -> None:
        """A scheduler step of it is done."""


@dataclass(frozen=True)
class Experiment:
    """A pipeline and what to measure on it.

    Attributes:
        pipe: the loaded pipeline.
        methods: label -> what `keystep.accelerate` takes.
        arguments: keyword arguments of every call beside the prompt.
        num_rounds: timed rounds for each prompt and seed, each one pair of every method; 0 = no timing.
        budget_s: begin no round after so many seconds of measuring, but run one; None = no limit.
        progress: told about every generation and step.
    """

    pipe: Any
    methods: Mapping[str, Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    num_rounds: int = 1
    budget_s: float | None = None
    progress: Progress | None = None

    def count_generations(self, num_methods: int) -> int:
        """How many generations `measure` runs at most for one prompt and seed with so many methods."""
        return (1 + num_methods) * (1 + self.num_rounds)

    def measure(self, prompt: str, seed: int, labels: Sequence[str]) -> list[tuple[Outcome, Video]]:
        """The plain outcome, then those of the methods under `labels`, each with its video.

        Raises:
            ValueError: a method does not fit the pipeline, or the pipeline makes no video.
        """
        begin = time.perf_counter()
        made = {label: self._run(label, prompt, seed, should_count_flops=True) for label in (PLAIN, *labels)}
        pairs = self._time_rounds(prompt, seed, labels, begin)
        plain = made[PLAIN]
        results = []
        for label, generation in made.items():
            outcome = _describe(prompt, seed, label, generation, plain)
            results.append((replace(outcome, pairs=tuple(pairs.get(label, ()))), generation.video))
        return results

    def _time_rounds(
        self, prompt: str, seed: int, labels: Sequence[str], begin: float
    ) -> dict[str, list[TimedPair]]:
        pairs: dict[str, list[TimedPair]] = {label: [] for label in labels}
        for index in range(self.num_rounds):
            if index and self.budget_s is not None and time.perf_counter() - begin > self.budget_s:
                break
            plain = self._run(PLAIN, prompt, seed, should_count_flops=False)
            for label in labels:
                fast = self._run(label, prompt, seed, should_count_flops=False)
                pairs[label].append(TimedPair(plain.loop_s, fast.loop_s, plain.total_s, fast.total_s))
        return pairs

    def _run(self, label: str, prompt: str, seed: int, should_count_flops: bool) -> Generation:
        if self.progress is not None:
            self.progress.begin_generation(label if should_count_flops else f"{label}, timed")
        return run_pipeline(
            self.pipe,
            None if label == PLAIN else self.methods[label],
            {**self.arguments, "prompt": prompt},
            seed,
            should_count_flops=should_count_flops,
            on_step=None if self.progress is None else self.progress.end_step,
        )


def _describe(prompt: str, seed: int, label: str, made: Generation, plain: Generation) -> Outcome:
    return Outcome(
        prompt=prompt,
        seed=seed,
        method=label,
        quality=None if made is plain else compare_videos(made.video, plain.video),
        flops=made.flops,
        plain_flops=plain.flops,
        uncounted=made.uncounted,
        pairs=(),
        trace=None if made.trace is None else made.trace.to_dict(),
    )
