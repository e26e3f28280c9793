"""Run a pipeline once, with or without a method, and keep what was made and what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import keystep
from keystep.engine.trace import Trace
from keystep.metrics.flops import FlopCounter
from keystep.metrics.loop import StepCallback, read_loop, read_seconds
from keystep.metrics.quality import Video


@dataclass(frozen=True)
class Generation:
    """One generated video and its costs.

    Attributes:
        video: float32, shape (F, H, W, 3), in [0, 1].
        trace: what was computed and reused; None for a plain generation.
        summary: the same in words; empty for a plain generation.
        loop_s: seconds of the denoising loop; 0 when FLOPs were counted instead.
        total_s: seconds of the whole call, text encoder and decoder included.
        flops: operations of the denoising loop; 0 when seconds were counted instead.
        uncounted: attention operators that `flops` leaves out for want of a formula.
    """

    video: Video
    trace: Trace | None
    summary: str
    loop_s: float
    total_s: float
    flops: float
    uncounted: tuple[str, ...] = ()


def run_pipeline(
    pipe: Any,
    method: Any,
    arguments: Mapping[str, Any],
    seed: int,
    *,
    should_count_flops: bool = False,
    on_step: StepCallback | None = None,
) -> Generation:
    """Generate one video.

    Args:
        pipe: a loaded pipeline.
        method: what `keystep.accelerate` takes; None for the plain pipeline.
        arguments: keyword arguments of the pipeline's call, without `generator` and `output_type`.
        seed: of the initial noise, drawn on the CPU so that every device starts from the same.
        should_count_flops: count operations instead of seconds (counting is slow, so never both).
        on_step: called with (steps done, steps planned) after every scheduler step.

    Raises:
        ValueError: the method does not fit the pipeline, or it makes no video.
    """
    counter = FlopCounter() if should_count_flops else None
    clock: Callable[[], float] = read_seconds if counter is None else lambda: counter.total
    with ExitStack() as stack:
        session = None if method is None else stack.enter_context(keystep.accelerate(pipe, method))
        loop = stack.enter_context(read_loop(pipe, clock, on_step))
        if counter is not None:
            stack.enter_context(counter)
        generator = torch.Generator("cpu").manual_seed(seed)
        begin = time.perf_counter()
        output = pipe(**arguments, generator=generator, output_type="np")
        total_s = time.perf_counter() - begin
    return Generation(
        video=_first_video(output),
        trace=None if session is None else session.trace,
        summary="" if session is None else session.summary(),
        loop_s=loop.elapsed if counter is None else 0.0,
        total_s=total_s,
        flops=0.0 if counter is None else loop.elapsed,
        uncounted=() if counter is None else tuple(sorted(counter.uncounted)),
    )


def _first_video(output: Any) -> Video:
    frames = getattr(output, "frames", None)
    if frames is None:
        raise ValueError(f"the pipeline returned {type(output).__name__} without frames: it makes no video")
    return np.asarray(frames[0], dtype=np.float32)
