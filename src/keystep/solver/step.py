"""One step of a scheduler: its arguments by name, and how the next latent responds to them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from keystep.solver.noise import Level
from keystep.solver.snapshot import take_snapshot, tensors_of

REQUIRED = ("model_output", "timestep", "sample")
SEED = 0  # of probes; whatever noise a step adds is the same in all of them, and cancels
CLIPPING = ("clip_sample", "thresholding")
# CogVideoX's DPM-Solver keeps its memory in the pipeline; LTX conditions with a noise level for each token.
BEYOND = {"old_pred_original_sample", "per_token_timesteps"}


@dataclass(frozen=True)
class StepCall:
    """The arguments of one call of `scheduler.step`.

    Attributes:
        output, sample: the model's output after guidance, and the latent it belongs to.
        timestep: of the evaluation.
        others: all other arguments by name.
    """

    output: torch.Tensor
    sample: torch.Tensor
    timestep: Any
    others: dict[str, Any]

    @classmethod
    def read(cls, scheduler: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> StepCall:
        """From how a pipeline called it.

        Raises:
            ValueError: `step` has not the arguments that schedulers have.
        """
        signature = inspect.signature(type(scheduler).step)
        given = dict(signature.bind(scheduler, *args, **kwargs).arguments)
        given.pop("self")
        missing = [name for name in REQUIRED if name not in given]
        if missing:
            raise ValueError(
                f"scheduler: {type(scheduler).__name__}.step was called without {', '.join(missing)}, so its "
                "steps cannot be followed"
            )
        return cls(given.pop("model_output"), given.pop("sample"), given.pop("timestep"), given)

    def take(self, step: Callable[..., Any]) -> Any:
        """What a step returns, in the form the pipeline asked for."""
        arguments = {"model_output": self.output, "timestep": self.timestep, "sample": self.sample}
        return step(**arguments, **self.others)

    def next_sample(self, scheduler: Any) -> torch.Tensor:
        """The next latent alone, by the scheduler's own step."""
        alone = replace(self, others=self.others | {"return_dict": False})
        return alone.take(partial(type(scheduler).step, scheduler))[0]


@dataclass(frozen=True)
class Response:
    """How the next latent follows from latent and data prediction: `next = latent * a + data * b + noise`."""

    latent: float
    data: float


def is_repeatable(scheduler: Any, call: StepCall) -> bool:
    """Whether a step taken twice from one state leads to the same latent; a step that hands part of its
    memory to the pipeline does not. The scheduler is left as it is.
    """
    if BEYOND & set(call.others):
        return False
    ends = []
    with _forked(scheduler, call):
        for seed in (SEED, SEED + 1):
            twin = take_snapshot(scheduler)
            ends.append([_probe(twin, call, timestep, 1, 1, seed) for timestep in scheduler.timesteps])
    return torch.equal(*(torch.cat(each) for each in ends))


def find_response(scheduler: Any, call: StepCall, levels: list[Level]) -> list[Response] | None:
    """The responses of all steps from here, by stepping on single numbers; one device read.

    Args:
        scheduler: before the step of the call; it is left as it is.
        call: the first step of the generation.
        levels: of the call's evaluation and all later ones.

    Returns:
        A response for each level; None where a step is not a linear function of latent and output alone:
        multistep solvers, and those that clip what they are given.
    """
    if any(scheduler.config.get(name) for name in CLIPPING) or BEYOND & set(call.others):
        return None
    twin, rows = take_snapshot(scheduler), []
    with _forked(scheduler, call):
        for timestep in scheduler.timesteps[len(scheduler.timesteps) - len(levels) :]:
            before = take_snapshot(twin)
            numbers = ((1, 0), (0, 1), (0, 0))  # latent, output
            rows.append([_probe(take_snapshot(before), call, timestep, *pair) for pair in numbers])
            _probe(twin, call, timestep, 0, 0)
            if _keeps_outputs(before, twin):
                return None
    values = torch.stack([torch.cat(row) for row in rows]).cpu().double().tolist()
    return [
        _in_data(latent - rest, output - rest, level)
        for (latent, output, rest), level in zip(values, levels, strict=True)
    ]


def _keeps_outputs(before: Any, after: Any) -> bool:
    """Whether a step left tensors behind: a multistep solver, whose next steps depend on earlier outputs."""
    known = {id(tensor) for tensor in tensors_of(before)}
    return any(id(tensor) not in known for tensor in tensors_of(after))


def _probe(
    scheduler: Any, call: StepCall, timestep: Any, sample: float, output: float, seed: int = SEED
) -> torch.Tensor:
    """The next latent of a single number, (1,) float32."""
    others = dict(call.others)
    if _takes_generator(scheduler):
        given, device = others.get("generator"), call.sample.device
        device = device if given is None or _draws_there(given, call.sample) else "cpu"
        others["generator"] = torch.Generator(device).manual_seed(seed)
    elif _draws_globally(scheduler):
        _seed(call.sample.device, seed)
    number = StepCall(_single(output, call), _single(sample, call), timestep, others)
    return number.next_sample(scheduler).float().reshape(1)


def _takes_generator(scheduler: Any) -> bool:
    return "generator" in inspect.signature(type(scheduler).step).parameters


def _draws_globally(scheduler: Any) -> bool:
    """Whether its steps may draw from the process's generators. Other threads draw from them too, so they are
    left alone where that is known: diffusers' schedulers without an own generator add no noise, or have a
    sampler of noise.
    """
    if _takes_generator(scheduler):
        return False
    return hasattr(scheduler, "noise_sampler") or not type(scheduler).__module__.startswith("diffusers.")


def _forked(scheduler: Any, call: StepCall) -> AbstractContextManager[None]:
    """Gives back the process's generators after probes that draw from them."""
    if not _draws_globally(scheduler):
        return nullcontext()
    return torch.random.fork_rng([call.sample.device] if call.sample.is_cuda else [])


def _seed(device: torch.device, seed: int) -> None:
    """Seed what `_forked` gives back, and no other device's generator as `torch.manual_seed` would."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _draws_there(generator: Any, sample: torch.Tensor) -> bool:
    first = generator[0] if isinstance(generator, list) else generator
    return first.device.type == sample.device.type


def _single(value: float, call: StepCall) -> torch.Tensor:
    shape = (1,) * call.sample.ndim
    return torch.full(shape, float(value), dtype=torch.float32, device=call.sample.device)


def _in_data(latent: float, output: float, level: Level) -> Response:
    """From the response to the model's output to that to the data it predicts."""
    data = output / level.output_weight
    return Response(latent - data * level.latent_weight, data)


def scheduler_of(step: Any) -> Any:
    """The scheduler behind a `step`, whatever stands in front of it."""
    while not hasattr(step, "__self__"):
        step = step.method
    return step.__self__
