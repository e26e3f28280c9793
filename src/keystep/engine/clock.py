"""Reading the clock of a generation: timesteps from the scheduler, guidance from the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def timesteps_of(scheduler: Any) -> list[float]:
    """One timestep per model evaluation, on the host (one device read per generation)."""
    timesteps = scheduler.timesteps
    return timesteps.tolist() if isinstance(timesteps, torch.Tensor) else [float(t) for t in timesteps]


def first_index(times: Sequence[float], timestep: Any, scheduler: Any, pipeline: Any) -> int:
    """Which of the scheduler's timesteps the first evaluation is at.

    Image-to-video strength and resumed runs begin in the middle: the first call's timestep tells where. Where
    the model is given something else than the scheduler's timestep, the scheduler's begin index counts.
    Samplers of higher order repeat timesteps: the pipeline's count of them, or the begin index, says which.
    """
    begin = getattr(scheduler, "begin_index", None) or 0
    if isinstance(timestep, torch.Tensor) and timestep.numel():
        timestep = timestep.max().item()  # Wan 2.2 gives a timestep per token, 0 where a frame is given
    if timestep not in times:
        return begin
    count = getattr(pipeline, "_num_timesteps", None) or 0
    for index in (len(times) - count, begin):
        if 0 <= index < len(times) and times[index] == timestep:
            return index
    return times.index(timestep)


def is_guided(pipeline: Any) -> bool:
    """Whether classifier-free guidance is on, from the pipeline's own flag, at the first evaluation.

    Raises:
        ValueError: if the pipeline has neither `do_classifier_free_guidance` nor `guidance_scale`.
    """
    flag = getattr(pipeline, "do_classifier_free_guidance", None)
    if flag is not None:
        return bool(flag)
    scale = getattr(pipeline, "guidance_scale", None)
    if scale is None:
        raise ValueError(
            f"guidance: {type(pipeline).__name__} shows neither do_classifier_free_guidance nor "
            "guidance_scale, so the branches cannot be told apart; accelerate the transformer and call "
            "begin(num_evaluations, guided=...)"
        )
    return float(scale) > 1.0
