"""Read a clock at both ends of a pipeline's denoising loop, from outside.

The loop begins at the first call of a transformer and ends with the last `scheduler.step`, so prompt encoding
and decoding stay out of it. The clock is any function without arguments: seconds, or FLOPs counted so far.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from keystep.engine.target import find_transformers

StepCallback = Callable[[int, int], None]  # (scheduler steps done, planned), after each scheduler step


def read_seconds() -> float:
    """Wall time in seconds, after all queued work of the accelerator is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@dataclass
class LoopReading:
    """What the clock showed.

    Attributes:
        begin: clock at the first transformer call; None before it.
        end: clock after the latest `scheduler.step`; None before it.
        num_steps: scheduler steps seen.
    """

    begin: float | None = None
    end: float | None = None
    num_steps: int = 0

    @property
    def elapsed(self) -> float:
        """End minus begin.

        Raises:
            RuntimeError: no loop ran.
        """
        if self.begin is None or self.end is None:
            raise RuntimeError(
                "no denoising loop was seen: the pipeline called no transformer or no scheduler.step"
            )
        return self.end - self.begin


class _Step:
    """A scheduler's step, and what is done after it. Copies of the scheduler (LTX-2's for the audio) have
    their own.
    """

    def __init__(self, method: Callable[..., Any], end: Callable[[], None]) -> None:
        self.method = method
        self.end = end

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self.method(*args, **kwargs)
        self.end()
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> _Step:
        return _Step(copy.deepcopy(self.method, memo), self.end)


@contextmanager
def read_loop(
    pipe: Any, clock: Callable[[], float] = read_seconds, on_step: StepCallback | None = None
) -> Iterator[LoopReading]:
    """Read `clock` at both ends of the one loop that runs inside the `with` block.

    Enter it after `keystep.accelerate`, whose step may take the scheduler's in another way than by its name,
    and leave it before.

    Args:
        pipe: a pipeline with `components` and a scheduler.
        clock: what to read, default wall seconds.
        on_step: called with (steps done, steps planned) after every scheduler step.

    Raises:
        ValueError: the pipeline has no transformer.
    """
    reading, scheduler = LoopReading(), pipe.scheduler
    original = scheduler.step
    is_own = "step" in vars(scheduler)  # an instance attribute must be put back, the class's must show again

    def begin(*_: Any) -> None:
        if reading.begin is None:
            reading.begin = clock()

    def end() -> None:
        reading.num_steps += 1
        reading.end = clock()  # at every step: how many a pipeline will take is not known from outside
        if on_step is not None:
            on_step(reading.num_steps, len(scheduler.timesteps))

    handles = [module.register_forward_pre_hook(begin) for module in find_transformers(pipe).values()]
    scheduler.step = _Step(original, end)
    try:
        yield reading
    finally:
        for handle in handles:
            handle.remove()
        if is_own:
            scheduler.step = original
        else:
            del scheduler.step
