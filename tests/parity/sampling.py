"""Running a generation again: by hand with the session's clock, or through a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

import keystep
from keystep.engine.method import Method
from keystep.engine.trace import Trace

from .decisions import Counts, record
from .networks import Source


@dataclass(frozen=True)
class Recording:
    """What a trajectory file holds. B samples, N evaluations, R rows = B x branches, branch-major.

    Attributes:
        latents: (N + 1, B, ...), the state before every evaluation and the final one.
        outputs: (N, R, ...), what the model returned, rebuilt rows included.
        text: (R, tokens, width).
        times: timestep of every evaluation.
        guidance: scale at every evaluation; None = not recorded.
    """

    latents: torch.Tensor
    outputs: torch.Tensor
    text: torch.Tensor
    times: torch.Tensor
    guidance: list[float] | None = None

    @property
    def branches(self) -> int:
        """2 with guidance, 1 without."""
        return self.outputs.shape[1] // self.latents.shape[1]


@dataclass(frozen=True)
class Rerun:
    """What a generation gave this time; `latents` without the first."""

    outputs: list[torch.Tensor]
    latents: list[torch.Tensor]
    counts: list[Counts]
    trace: Trace


def guided(output: torch.Tensor, scale: float, latents: torch.Tensor, channels: int) -> torch.Tensor:
    """The guided prediction, without the channels of a learned variance."""
    if output.shape[0] > latents.shape[0]:
        uncond, cond = output.chunk(2)
        output = uncond + scale * (cond - uncond)
    return output.narrow(channels, 0, latents.shape[channels])


def constant_guidance(recording: Recording, scheduler: Any, channels: int) -> float:
    """The guidance scale of a recording that does not say it.

    A scheduler step is affine in the guided predictions so far, so the recorded outputs and latents tell the
    scale: least squares over all steps, rounded to thousandths. Uses recorded tensors only, so it hides no
    error.
    """
    if recording.branches == 1:
        return 1.0
    numerator = denominator = 0.0
    samplers = [(deepcopy(scheduler), scale) for scale in (0.0, 1.0)]  # some remember earlier predictions
    for k, t in enumerate(recording.times):
        before, after = recording.latents[k].double(), recording.latents[k + 1].double()
        output = recording.outputs[k].double()
        at_0, at_1 = (
            sampler.step(guided(output, scale, before, channels), t, before, return_dict=False)[0]
            for sampler, scale in samplers
        )
        numerator += ((after - at_0) * (at_1 - at_0)).sum().item()
        denominator += (at_1 - at_0).square().sum().item()
    return round(numerator / denominator, 3)


def num_steps(scheduler: Any, num_evaluations: int) -> int:
    """The sampling steps that a scheduler makes so many model evaluations of; leaves it set to them.

    Raises:
        ValueError: no number of steps does.
    """
    for steps in range(num_evaluations, 0, -1):
        scheduler.set_timesteps(steps)
        if len(scheduler.timesteps) == num_evaluations:
            return steps
    raise ValueError(f"{type(scheduler).__name__} has no run of {num_evaluations} evaluations")


@dataclass(frozen=True)
class Free:
    """A run that goes its own way from the first latents: the scheduler, and guidance at every evaluation."""

    scheduler: Any
    scales: Sequence[float]


def run_session(source: Source, recording: Recording, method: Method, free: Free | None = None) -> Rerun:
    """Evaluate a bare transformer by `begin` and `step` of a session; on recorded latents without `free`."""
    model = record(source.build())
    branches, latents = recording.branches, recording.latents[0]
    states: list[torch.Tensor] = []
    extras = source.network.extras(model, latents)
    with torch.no_grad(), keystep.accelerate(model, method, guidance="batched:uncond,cond") as session:
        session.begin(len(recording.times), guided=branches > 1, times=recording.times.tolist())
        for k, t in enumerate(recording.times):
            rows = torch.cat([latents if free else recording.latents[k]] * branches)
            output = model(
                hidden_states=rows,
                encoder_hidden_states=recording.text,
                timestep=t.expand(rows.shape[0]),
                return_dict=False,
                **extras,
            )[0]
            session.step()
            if free:
                prediction = guided(output, free.scales[k], latents, source.network.channels)
                latents = free.scheduler.step(prediction, t, latents, return_dict=False)[0]
                states.append(latents)
    assert session.trace is not None, "begin() made one"
    return Rerun(model.outputs, states, model.counts, session.trace)


def run_pipeline(
    source: Source, recording: Recording, method: Method, scheduler: Any, **options: Any
) -> Rerun:
    """Generate with the real pipeline class; keystep follows the pipeline's own scheduler and layout."""
    model = record(source.build())
    pipe = source.network.pipeline(None, None, None, model, scheduler)
    pipe.set_progress_bar_config(disable=True)
    states: list[torch.Tensor] = []

    def keep(pipe: Any, index: int, t: Any, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        del pipe, index, t
        states.append(values["latents"])
        return values

    first = recording.latents[0]
    negative, positive = recording.text.chunk(2)
    with keystep.accelerate(pipe, method) as session:
        pipe(
            prompt=None,
            negative_prompt=None,
            prompt_embeds=positive,
            negative_prompt_embeds=negative,
            latents=first,
            num_inference_steps=num_steps(scheduler, len(recording.times)),
            output_type="latent",
            callback_on_step_end=keep,
            **source.network.size(first.shape),
            **options,
        )
    assert session.trace is not None, "the pipeline began a generation"
    return Rerun(model.outputs, states, model.counts, session.trace)
