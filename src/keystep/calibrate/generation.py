"""One generation of a pipeline, down to the final latent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch

from keystep.engine.restore import replace_attribute


def final_latent(pipe: Any, arguments: Mapping[str, Any], seed: int) -> torch.Tensor:
    """The latent a pipeline would decode.

    Args:
        pipe: a pipeline with `output_type="latent"`, as it is attached at the moment.
        arguments: keyword arguments of its call, prompt included.
        seed: of the initial noise, drawn on the CPU.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    return pipe(**arguments, generator=generator, output_type="latent").frames


def after_each_step(stack: ExitStack, scheduler: Any, call: Callable[[], None]) -> None:
    """Call back after every step of a scheduler, one a model evaluation, until the stack closes."""
    step = scheduler.step

    def stepping(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        call()
        return result

    replace_attribute(stack, scheduler, "step", stepping)


def count_evaluations(pipe: Any, arguments: Mapping[str, Any]) -> int:
    """Model evaluations of one generation; samplers may need more of them than steps."""
    steps: list[None] = []
    with ExitStack() as stack, torch.no_grad():
        after_each_step(stack, pipe.scheduler, lambda: steps.append(None))
        final_latent(pipe, arguments, 0)
    return len(steps)
