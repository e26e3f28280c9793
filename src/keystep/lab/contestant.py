"""What is measured: a method, ours or a rival's, with one setting of its knobs, on a loaded model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keystep

OURS, PLAIN, FEWER_STEPS = "keystep", "plain", "fewer steps"  # sources of contestants
QUALITY, SPEED, ROBUSTNESS = "quality", "speed", "robustness"  # parts of the bench


@dataclass(frozen=True)
class Subject:
    """A model to measure on, not loaded yet.

    Attributes:
        name: how results call it.
        load: makes the pipeline.
        call: (prompt, seed, steps) -> all arguments of one call of it; the same ones give the same video.
        prompts: those of the published figures.
        development_prompts: those that tuning and calibration may see.
        num_steps: sampling steps of the plain video.
        parts: of the bench that mean something on it: nobody judges the videos of random weights.
        read: (video, prompt) -> field -> whether the video shows it; None = nothing can be read.
        fps: frames per second of its videos.
    """

    name: str
    load: Callable[[], Any]
    call: Callable[[str, int, int], dict[str, Any]]
    prompts: tuple[str, ...]
    development_prompts: tuple[str, ...]
    num_steps: int
    parts: tuple[str, ...]
    read: Callable[[Any, str], dict[str, bool]] | None = None
    fps: float = 8.0


@dataclass(frozen=True)
class Bench:
    """A loaded model and how many steps its plain video takes.

    Attributes:
        subject: what was loaded.
        pipe: the pipeline.
        num_steps: sampling steps of the plain video.
        notes: what contestants keep about this model, e.g. a calibration; by their own keys.
    """

    subject: Subject
    pipe: Any
    num_steps: int
    notes: dict[str, Any] = field(default_factory=dict)

    def call(self, prompt: str, seed: int, num_steps: int | None = None) -> dict[str, Any]:
        """Arguments of one call of the pipeline."""
        return self.subject.call(prompt, seed, num_steps or self.num_steps)


class Name(NamedTuple):
    """A contestant in words.

    Attributes:
        source: whose code runs: `keystep`, `diffusers`, `cache-dit`, `fewer steps`, `plain`.
        method: its name there.
        setting: its knobs; the settings of one method make a curve.
    """

    source: str
    method: str
    setting: str

    @property
    def family(self) -> str:
        """The method and whose it is: what a curve is of."""
        return self.source if self.source == PLAIN else f"{self.source}: {self.method}"

    def __str__(self) -> str:
        return f"{self.family} ({self.setting})" if self.setting else self.family


Attach = Callable[[Bench], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Contestant:
    """A method with one setting.

    Attributes:
        name: who it is.
        attach: context manager in which the pipeline of a bench is accelerated.
        share: steps as a fraction of the plain video's, 1 = as many.
        is_default: whether it is what one gets without turning a knob; speed and robustness are of these.
    """

    name: Name
    attach: Attach
    share: float = 1.0
    is_default: bool = False

    def count_steps(self, bench: Bench) -> int:
        """Sampling steps of its videos."""
        return max(1, round(self.share * bench.num_steps))


def attach_nothing(bench: Bench) -> AbstractContextManager[None]:
    """The plain pipeline."""
    del bench
    return nullcontext()


PLAIN_CONTESTANT = Contestant(Name(PLAIN, PLAIN, ""), attach_nothing, is_default=True)


def ours(method: Any, options: Mapping[str, Any]) -> Attach:
    """Attach a method of keystep: a name with its options, or a policy without."""

    @contextmanager
    def attach(bench: Bench) -> Any:
        with keystep.accelerate(bench.pipe, method, **options) as session:
            yield session

    return attach


def describe(options: Mapping[str, Any]) -> str:
    """Knobs in words, `default` for none."""
    return ", ".join(f"{key}={value}" for key, value in options.items()) or "default"
