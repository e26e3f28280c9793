"""What a user would do instead of caching: fewer steps, with the same sampler or with a better one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from keystep.lab.contestant import FEWER_STEPS, Bench, Contestant, Name, attach_nothing

SAME_SAMPLER = "same sampler"
SHARES = (0.7, 0.5, 0.42, 0.35, 0.3, 0.25, 0.2)  # steps as fractions of the plain video's
SOLVERS: dict[str, Any] = {"UniPC": UniPCMultistepScheduler, "DPM-Solver++": DPMSolverMultistepScheduler}


def fewer_steps() -> list[Contestant]:
    """Each solver at each share of the steps; the default is half of them."""
    attach = {SAME_SAMPLER: attach_nothing} | {name: _with(cls) for name, cls in SOLVERS.items()}
    return [
        Contestant(Name(FEWER_STEPS, name, f"{share:.0%}"), use, share, is_default=share == 0.5)
        for name, use in attach.items()
        for share in SHARES
    ]


def _with(solver: Any) -> Callable[[Bench], AbstractContextManager[None]]:
    return lambda bench: sampled_by(bench.pipe, solver)


@contextmanager
def sampled_by(pipe: Any, solver: Any) -> Iterator[None]:
    """Another solver in the pipeline, at the noise levels of its own, until the block is left."""
    before = pipe.scheduler
    pipe.scheduler = convert_scheduler(before, solver)
    try:
        yield
    finally:
        pipe.scheduler = before


def convert_scheduler(scheduler: Any, solver: Any) -> Any:
    """A multistep solver with the noise levels and the prediction type of another scheduler.

    Raises:
        ValueError: the solver's configuration has no room for them.
    """
    config = scheduler.config
    if "prediction_type" in config:
        return solver.from_config(config)
    # Flow-matching schedulers predict the flow without saying so; solvers call their shift another name.
    return solver.from_config(
        config, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=config.get("shift", 1.0)
    )
