"""Measure methods against the plain pipeline, one prompt and seed at a time, all in one process.

Each method runs once while FLOPs are counted, which makes the video and warms everything up; then plain and
accelerated generations are timed in turns. Machines are noisy: only ratios of neighbours mean anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
        num_pairs: timed pairs a method, prompt and seed; 0 = no timing.
        progress: told about every generation and step.
    """

    pipe: Any
    methods: Mapping[str, Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    num_pairs: int = 1
    progress: Progress | None = None

    def count_generations(self, num_methods: int) -> int:
        """How many generations `measure` runs for one prompt and seed with so many methods."""
        return 1 + num_methods * (1 + 2 * self.num_pairs)

    def measure(self, prompt: str, seed: int) -> Iterator[tuple[Outcome, Video]]:
        """Yield the plain outcome and then each method's, with its video, as soon as it is measured."""
        reference = self._run(None, PLAIN, prompt, seed, should_count_flops=True)
        yield self._outcome(prompt, seed, PLAIN, reference, reference, ()), reference.video
        for label, method in self.methods.items():
            counted = self._run(method, label, prompt, seed, should_count_flops=True)
            pairs = tuple(self._time_pair(method, label, prompt, seed) for _ in range(self.num_pairs))
            yield self._outcome(prompt, seed, label, counted, reference, pairs), counted.video

    def _run(self, method: Any, label: str, prompt: str, seed: int, should_count_flops: bool) -> Generation:
        if self.progress is not None:
            self.progress.begin_generation(label)
        return run_pipeline(
            self.pipe,
            method,
            {**self.arguments, "prompt": prompt},
            seed,
            should_count_flops=should_count_flops,
            on_step=None if self.progress is None else self.progress.end_step,
        )

    def _time_pair(self, method: Any, label: str, prompt: str, seed: int) -> TimedPair:
        plain = self._run(None, f"{PLAIN}, timed", prompt, seed, should_count_flops=False)
        fast = self._run(method, f"{label}, timed", prompt, seed, should_count_flops=False)
        return TimedPair(plain.loop_s, fast.loop_s, plain.total_s, fast.total_s)

    def _outcome(
        self, prompt: str, seed: int, label: str, made: Generation, plain: Generation, pairs: tuple[TimedPair, ...]
    ) -> Outcome:
        return Outcome(
            prompt=prompt,
            seed=seed,
            method=label,
            quality=None if made is plain else compare_videos(made.video, plain.video),
            flops=made.flops,
            plain_flops=plain.flops,
            uncounted=made.uncounted,
            pairs=pairs,
            trace=None if made.trace is None else made.trace.to_dict(),
        )
