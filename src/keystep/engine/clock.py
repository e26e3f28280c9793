"""Reading the clock of a generation: timesteps from the scheduler, guidance from the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def timesteps_of(scheduler: Any) -> list[float]:
    """One timestep per model evaluation, on the host (one device read per generation)."""
    timesteps = scheduler.timesteps
    return timesteps.tolist() if isinstance(timesteps, torch.Tensor) else [float(t) for t in timesteps]


def refine_steps(
    args: tuple[Any, ...], kwargs: dict[str, Any], factor: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of `set_timesteps` for `factor` times as many steps; sigmas that are given are interpolated.

    Raises:
        ValueError: timesteps are given one by one.
    """
    if factor == 1:
        return args, kwargs
    kwargs = dict(kwargs)
    if kwargs.get("timesteps") is not None:
        raise ValueError("timesteps: given one by one, so there cannot be more of them; give their number")
    sigmas = kwargs.get("sigmas")
    if sigmas is not None:
        places = np.arange(factor * len(sigmas)) / factor
        refined = np.interp(places, np.arange(len(sigmas) + 1), [*sigmas, 0.0])
        kwargs["sigmas"] = refined.tolist() if isinstance(sigmas, list) else refined
    if args and args[0] is not None:
        args = (args[0] * factor, *args[1:])
    elif kwargs.get("num_inference_steps") is not None:
        kwargs["num_inference_steps"] *= factor
    return args, kwargs


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


def check_levels(times: Sequence[float], timestep: Any, pipeline: Any) -> None:
    """Raise `ValueError` if a pipeline gives parts of a video noise levels of their own, so that it has more
    evaluations than the scheduler has timesteps: SkyReels-V2's diffusion forcing, frame after frame.
    """
    count = getattr(pipeline, "_num_timesteps", None) or 0
    has_levels = isinstance(timestep, torch.Tensor) and timestep.ndim > 1
    if has_levels and count > len(times):
        raise ValueError(
            f"ar_step: {type(pipeline).__name__} plans {count} evaluations for {len(times)} timesteps: its "
            "frames have noise levels of their own, so no schedule fits them all and it is not accelerated; "
            "pass ar_step=0 (one level for all frames)"
        )


def is_guided(pipeline: Any) -> bool:
    """Whether classifier-free guidance is on, from the pipeline's own flag, at the first evaluation.

    Raises:
        ValueError: if the pipeline has neither `do_classifier_free_guidance` nor `guidance_scale`.
    """
    shown = shown_guidance(pipeline)
    if shown is None:
        raise ValueError(
            f"guidance: {type(pipeline).__name__} shows neither do_classifier_free_guidance nor "
            "guidance_scale, so the branches cannot be told apart; accelerate the transformer and call "
            "begin(num_evaluations, guided=...)"
        )
    return shown


def shown_guidance(pipeline: Any, is_scale_guidance: bool = True) -> bool | None:
    """Whether classifier-free guidance is on; None = the pipeline does not show it.

    Args:
        pipeline: asked at the first evaluation.
        is_scale_guidance: whether its `guidance_scale` is of this guidance; in HunyuanVideo it is a number
            that the model is given.
    """
    flag = getattr(pipeline, "do_classifier_free_guidance", None)
    if flag is not None:
        return bool(flag)
    scale = getattr(pipeline, "guidance_scale", None) if is_scale_guidance else None
    return None if scale is None else float(scale) > 1.0
